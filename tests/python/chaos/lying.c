/* A disk that says it has synced, and has not, every LYING-th time: what must be found out. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int lies(void) {
    static atomic_int calls;
    const char *every = getenv("LYING");
    return atomic_fetch_add(&calls, 1) % (every ? atoi(every) : 1) == 0;
}

int fsync(int file) { return lies() ? 0 : (int)syscall(SYS_fsync, file); }

int fdatasync(int file) { return lies() ? 0 : (int)syscall(SYS_fdatasync, file); }
