/* Loaded into a node in front of the C library: while the file that HELIX_CHAOS_SYNC_FAILS names exists, every fsync and
 * fdatasync fails as that of a broken disk does. */

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int sync_or_fail(long call, int fd) {
    const char *trigger = getenv("HELIX_CHAOS_SYNC_FAILS");
    if (trigger != NULL && access(trigger, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(call, fd);
}

int fsync(int fd) { return sync_or_fail(SYS_fsync, fd); }

int fdatasync(int fd) { return sync_or_fail(SYS_fdatasync, fd); }
