/* Loaded into a node in front of the C library, to be its machine where that does what can't be had from a real one.
 *
 * HELIX_MACHINE names a directory. While there is a file "sync-fails" in it, every fsync and fdatasync fails as that of a
 * broken disk does. If there is a file "boot-id", it is read in place of the kernel's: the machine has been started again. */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BOOT_ID "/proc/sys/kernel/random/boot_id"

/* The path of a file of the machine, or 0 if there is no such file. */
static int find(const char *name, char *path, size_t size) {
    const char *machine = getenv("HELIX_MACHINE");
    if (machine == NULL || (size_t)snprintf(path, size, "%s/%s", machine, name) >= size) {
        return 0;
    }
    return access(path, F_OK) == 0;
}

static int sync_or_fail(long call, int fd) {
    char path[4096];
    if (find("sync-fails", path, sizeof path)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(call, fd);
}

int fsync(int fd) { return sync_or_fail(SYS_fsync, fd); }

int fdatasync(int fd) { return sync_or_fail(SYS_fdatasync, fd); }

static int open_there(const char *path, int flags, unsigned mode) {
    char instead[4096];
    if (strcmp(path, BOOT_ID) == 0 && find("boot-id", instead, sizeof instead)) {
        path = instead;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

#define OPEN(name, more)                                                                                                \
    int name(const char *path, int flags, ...) {                                                                        \
        unsigned mode = 0;                                                                                              \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                                            \
            va_list arguments;                                                                                          \
            va_start(arguments, flags);                                                                                 \
            mode = va_arg(arguments, unsigned);                                                                         \
            va_end(arguments);                                                                                          \
        }                                                                                                               \
        return open_there(path, flags | (more), mode);                                                                  \
    }

OPEN(open, 0)
/* What a program built with 64 bit offsets calls. */
OPEN(open64, O_LARGEFILE)
