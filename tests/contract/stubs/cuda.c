/* CUDA's driver with one GPU that does not exist: its compute capability and name come from the environment. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

enum { CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76 };

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value ? value : otherwise;
}

int cuInit(unsigned flags) { (void)flags; return 0; }
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuDeviceGetCount(int *count) { *count = atoi(setting("CUDA_STAND_IN_GPUS", "1")); return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetName(char *name, int size, int device)
{
    (void)device;
    snprintf(name, (size_t)size, "%s", setting("CUDA_STAND_IN_NAME", "Stand-In GPU"));
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    int major = 8, minor = 6;
    (void)device;
    sscanf(setting("CUDA_STAND_IN_CAPABILITY", "8.6"), "%d.%d", &major, &minor);
    *value = attribute == CAPABILITY_MAJOR ? major : attribute == CAPABILITY_MINOR ? minor : 0;
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = (size_t)8 << 30; return 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) { (void)device; memset(uuid, 0x42, 16); return 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) { return cuDeviceGetUuid(uuid, device); }
