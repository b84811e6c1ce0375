/* Preloaded into a process whose power is going to be cut: notes what it may rely on.
 *
 * One line per event in the file that POWER_RECORD names, in the order of the events:
 *
 *   o DEVICE INODE PATH          opened to be written
 *   t DEVICE INODE PATH          the same, and it was emptied
 *   s DEVICE INODE LENGTH PATH   synced: its first LENGTH bytes are on stable storage
 *   d PATH                       a directory was synced: the names in it are on stable storage
 *   n PATH                       a new name, by creation or renaming
 *   g PATH                       a name is gone, or means another file
 *
 * With POWER_LIES set, a sync of a log (*.log) does nothing, notes nothing, and says that it went well.
 *
 * With POWER_BUDGET set, no more than so many bytes are taken by write(); from then on the disk is full (ENOSPC), until
 * the file that POWER_RELIEF names exists.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int record = -1;
static const char *record_path;
static const char *relief;
static int lies;
static int budgeted;
static atomic_llong budget;

static int (*real_open)(const char *, int, ...);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_rename)(const char *, const char *);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);

__attribute__((constructor)) static void start(void) {
    real_open = dlsym(RTLD_NEXT, "open");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    lies = getenv("POWER_LIES") != NULL;
    relief = getenv("POWER_RELIEF");
    if (getenv("POWER_BUDGET") != NULL) {
        budgeted = 1;
        budget = atoll(getenv("POWER_BUDGET"));
    }
    record_path = getenv("POWER_RECORD");
    if (record_path != NULL) {
        record = real_open(record_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (record < 0) {
            perror("POWER_RECORD");
            _exit(99);
        }
    }
}

static void note(const char *format, ...) {
    char line[PATH_MAX + 128];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    /* One write for a line: a process that is stopped here has written all of it or nothing. */
    if (record >= 0 && (length >= (int)sizeof line || real_write(record, line, length) != length)) {
        _exit(98);
    }
}

static int is_log(const char *path) {
    size_t length = strlen(path);
    return length > 4 && strcmp(path + length - 4, ".log") == 0;
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) {
        return -1;
    }
    path[length] = 0;
    return 0;
}

static int do_open(const char *path, int flags, mode_t mode) {
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    struct stat old;
    int is_new = record >= 0 && writes && stat(path, &old) != 0;
    int fd = real_open(path, flags, mode);
    struct stat stat;
    if (fd < 0 || record < 0 || !writes || fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode)) {
        return fd;
    }
    int saved = errno;
    if (is_new) {
        note("n %s\n", path);
    }
    if (!(flags & O_APPEND)) {
        unsigned long long device = stat.st_dev, inode = stat.st_ino;
        note("%c %llu %llu %s\n", flags & O_TRUNC ? 't' : 'o', device, inode, path);
    }
    errno = saved;
    return fd;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        mode_t mode = 0;                                                                                               \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                                           \
            va_list arguments;                                                                                         \
            va_start(arguments, flags);                                                                                \
            mode = va_arg(arguments, mode_t);                                                                          \
            va_end(arguments);                                                                                         \
        }                                                                                                              \
        return do_open(path, flags, mode);                                                                             \
    }

OPEN(open)
OPEN(open64)

static int do_sync(int fd, int (*sync)(int)) {
    char path[PATH_MAX];
    struct stat stat;
    if ((record < 0 && !lies) || fstat(fd, &stat) != 0 || path_of(fd, path) != 0) {
        return sync(fd);
    }
    if (lies && is_log(path)) {
        return 0;
    }
    /* Before the sync: what is written meanwhile may not be covered. */
    off_t position = lseek(fd, 0, SEEK_CUR);
    off_t length = fcntl(fd, F_GETFL) & O_APPEND || (position == 0 && !is_log(path)) ? stat.st_size : position;
    int result = sync(fd);
    int saved = errno;
    if (result == 0 && S_ISDIR(stat.st_mode)) {
        note("d %s\n", path);
    } else if (result == 0) {
        note("s %llu %llu %lld %s\n", (unsigned long long)stat.st_dev, (unsigned long long)stat.st_ino,
             (long long)length, path);
    }
    errno = saved;
    return result;
}

int fsync(int fd) { return do_sync(fd, real_fsync); }

int fdatasync(int fd) { return do_sync(fd, real_fdatasync); }

int rename(const char *from, const char *to) {
    int result = real_rename(from, to);
    if (result == 0) {
        int saved = errno;
        note("g %s\n", from);
        note("n %s\n", to);
        errno = saved;
    }
    return result;
}

/* Whether there is room for so many bytes. Only what RocksDB writes with write() counts: logs and sorted files. */
static int has_room(int fd, size_t length) {
    struct stat stat;
    if (!budgeted || fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode)) {
        return 1;
    }
    if (relief != NULL && access(relief, F_OK) == 0) {
        return 1;
    }
    return atomic_fetch_sub(&budget, (long long)length) >= (long long)length;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    if (!has_room(fd, length)) {
        errno = ENOSPC;
        return -1;
    }
    return real_write(fd, bytes, length);
}

static ssize_t do_pwrite(int fd, const void *bytes, size_t length, off_t at) {
    if (!has_room(fd, length)) {
        errno = ENOSPC;
        return -1;
    }
    return real_pwrite(fd, bytes, length, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return do_pwrite(fd, bytes, length, at); }

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) { return do_pwrite(fd, bytes, length, at); }
