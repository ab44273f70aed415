/* NVIDIA's management library with made-up GPUs: what it says comes from NVML_STAND_IN_<FIGURE>, "no" for what it
   does not support. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, UNINITIALIZED = 1 };

static int running;

static int asked(const char *figure, unsigned long long *value)
{
    char name[64];
    const char *text;
    snprintf(name, sizeof name, "NVML_STAND_IN_%s", figure);
    text = getenv(name);
    if (!running) return UNINITIALIZED;
    if (!text || !strcmp(text, "no")) return NOT_SUPPORTED;
    *value = strtoull(text, NULL, 0);
    return SUCCESS;
}

static int small(const char *figure, unsigned *value)
{
    unsigned long long wide = 0;
    int code = asked(figure, &wide);
    *value = (unsigned)wide;
    return code;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; running = 1; return SUCCESS; }
int nvmlShutdown(void) { running = 0; return SUCCESS; }
const char *nvmlErrorString(int code) { return code == NOT_SUPPORTED ? "Not Supported" : "an error"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "550.54"); return SUCCESS; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12040; return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { return small("GPUS", count); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(size_t)(index + 1); return SUCCESS; }
int nvmlDeviceGetName(void *device, char *text, unsigned size) { snprintf(text, size, "Stand-in %d", (int)(size_t)device); return SUCCESS; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) { snprintf(text, size, "GPU-%d", (int)(size_t)device); return SUCCESS; }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor)
{
    (void)device;
    *major = 8;
    *minor = 6;
    return SUCCESS;
}
int nvmlDeviceGetClockInfo(void *device, int kind, unsigned *mhz)
{
    (void)device;
    return small(kind == 1 ? "SM_MHZ" : "MEMORY_MHZ", mhz);
}
int nvmlDeviceGetApplicationsClock(void *device, int kind, unsigned *mhz) { (void)device; (void)kind; return small("SET_MHZ", mhz); }
int nvmlDeviceGetDefaultApplicationsClock(void *device, int kind, unsigned *mhz) { (void)device; (void)kind; return small("DEFAULT_MHZ", mhz); }
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { (void)device; return small("POWER_MW", milliwatts); }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatts) { (void)device; return small("LIMIT_MW", milliwatts); }
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *degrees)
{
    (void)device;
    (void)sensor;
    return small("DEGREES", degrees);
}
int nvmlDeviceGetUtilizationRates(void *device, unsigned *rates) { (void)device; rates[1] = 0; return small("BUSY_PCT", rates); }
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *sizes) { (void)device; return asked("USED_BYTES", sizes + 2); }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *bits) { (void)device; return asked("REASONS", bits); }

struct process { unsigned pid; unsigned long long used; unsigned gpu, compute; };

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *found)
{
    unsigned pid;
    int code = small("PROCESS", &pid);
    (void)device;
    if (code != SUCCESS) return code;
    if (!found || *count < 1) { *count = 1; return INSUFFICIENT_SIZE; }
    *count = 1;
    memset(found, 0, sizeof *found);
    found->pid = pid;
    return SUCCESS;
}
