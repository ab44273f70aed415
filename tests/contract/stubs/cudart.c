/* CUDA's runtime on host memory: device addresses are malloc's, streams and events are numbers, copies are memmove. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void *handle;

int cudaMalloc(void **address, size_t size) { *address = malloc(size ? size : 1); return *address ? 0 : 2; }
int cudaMallocHost(void **address, size_t size) { return cudaMalloc(address, size); }
int cudaFree(void *address) { free(address); return 0; }
int cudaFreeHost(void *address) { free(address); return 0; }
int cudaMemcpy(void *to, const void *from, size_t size, int kind) { (void)kind; memmove(to, from, size); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, handle stream)
{
    (void)stream;
    return cudaMemcpy(to, from, size, kind);
}
int cudaMemset(void *address, int value, size_t size) { memset(address, value, size); return 0; }
int cudaStreamCreate(handle *stream) { *stream = (handle)1; return 0; }
int cudaStreamCreateWithFlags(handle *stream, unsigned flags) { (void)flags; return cudaStreamCreate(stream); }
int cudaStreamSynchronize(handle stream) { (void)stream; return 0; }
int cudaStreamDestroy(handle stream) { (void)stream; return 0; }
int cudaDeviceSynchronize(void) { return 0; }
int cudaEventCreate(handle *event) { *event = calloc(1, sizeof(struct timespec)); return *event ? 0 : 2; }
int cudaEventRecord(handle event, handle stream) { (void)stream; return clock_gettime(CLOCK_MONOTONIC, event) ? 1 : 0; }
int cudaEventSynchronize(handle event) { (void)event; return 0; }
int cudaEventElapsedTime(float *milliseconds, handle from, handle to)
{
    const struct timespec *first = from, *last = to;
    *milliseconds = 1e3f * (float)(last->tv_sec - first->tv_sec) + 1e-6f * (float)(last->tv_nsec - first->tv_nsec);
    return 0;
}
int cudaEventDestroy(handle event) { free(event); return 0; }
int cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    *total_bytes = (size_t)8 << 30;
    *free_bytes = (size_t)6 << 30;
    return 0;
}
/* A graph is a number: what was captured has run already, and a launch repeats nothing. */
int cudaStreamBeginCapture(handle stream, int mode) { (void)stream; (void)mode; return 0; }
int cudaStreamEndCapture(handle stream, handle *graph) { (void)stream; *graph = (handle)1; return 0; }
int cudaGraphInstantiateWithFlags(handle *executable, handle graph, unsigned long long flags)
{
    (void)graph;
    (void)flags;
    *executable = (handle)1;
    return 0;
}
int cudaGraphLaunch(handle executable, handle stream) { (void)executable; (void)stream; return 0; }
int cudaGraphDestroy(handle graph) { (void)graph; return 0; }
int cudaGraphExecDestroy(handle executable) { (void)executable; return 0; }
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaSetDevice(int device) { return device ? 101 : 0; }
int cudaRuntimeGetVersion(int *version) { *version = 12040; return 0; }
int cudaDriverGetVersion(int *version) { *version = 12040; return 0; }
int cudaGetLastError(void) { return 0; }
const char *cudaGetErrorString(int error) { return error ? "an error of the stand-in" : "no error"; }
