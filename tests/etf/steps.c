/* Counts what work is done, for tests that ask how it grows. No clock: the same input gives the same numbers.
 *
 * Linked with the codec, which is compiled with -fsanitize-coverage=trace-pc: each basic block of it calls
 * __sanitizer_cov_trace_pc. Beside that, every byte asked of Python's allocators counts, whoever asks. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

static unsigned long long blocks, bytes;

void __sanitizer_cov_trace_pc(void);

void __sanitizer_cov_trace_pc(void)
{
    blocks++;
}

static PyMemAllocatorEx inner[3];
static const PyMemAllocatorDomain domains[3] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};

static void *count_malloc(void *ctx, size_t size)
{
    PyMemAllocatorEx *to = ctx;
    bytes += size;
    return to->malloc(to->ctx, size);
}

static void *count_calloc(void *ctx, size_t count, size_t size)
{
    PyMemAllocatorEx *to = ctx;
    bytes += count * size;
    return to->calloc(to->ctx, count, size);
}

static void *count_realloc(void *ctx, void *old, size_t size)
{
    PyMemAllocatorEx *to = ctx;
    bytes += size;
    return to->realloc(to->ctx, old, size);
}

static void count_free(void *ctx, void *old)
{
    PyMemAllocatorEx *to = ctx;
    to->free(to->ctx, old);
}

void steps_start(void)
{
    for (int i = 0; i < 3; i++) {
        PyMem_GetAllocator(domains[i], &inner[i]);
        PyMemAllocatorEx counting = {&inner[i], count_malloc, count_calloc, count_realloc, count_free};
        PyMem_SetAllocator(domains[i], &counting);
    }
    blocks = bytes = 0;
}

void steps_stop(unsigned long long *into)
{
    into[0] = blocks;
    into[1] = bytes;
    for (int i = 0; i < 3; i++)
        PyMem_SetAllocator(domains[i], &inner[i]);
}
