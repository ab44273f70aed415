/* CUDA's runtime on host memory: device addresses are malloc's, streams and events are numbers, copies are memmove. */
#include <stdlib.h>
#include <string.h>

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
int cudaEventCreate(handle *event) { *event = (handle)1; return 0; }
int cudaEventRecord(handle event, handle stream) { (void)event; (void)stream; return 0; }
int cudaEventSynchronize(handle event) { (void)event; return 0; }
int cudaEventElapsedTime(float *milliseconds, handle from, handle to)
{
    (void)from;
    (void)to;
    *milliseconds = 0.01f;
    return 0;
}
int cudaEventDestroy(handle event) { (void)event; return 0; }
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaSetDevice(int device) { return device ? 101 : 0; }
int cudaRuntimeGetVersion(int *version) { *version = 12040; return 0; }
int cudaDriverGetVersion(int *version) { *version = 12040; return 0; }
int cudaGetLastError(void) { return 0; }
const char *cudaGetErrorString(int error) { return error ? "an error of the stand-in" : "no error"; }
