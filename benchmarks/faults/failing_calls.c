/* Log, fail or kill at the file system calls of a process that change something below a folder.
 *
 * Preloaded (LD_PRELOAD) into a program. fault_arm() reads the environment, also in each process
 * that is started with it:
 *   FAULT_FOLDER   the folder; without it nothing happens
 *   FAULT_COUNTER  file of 8 bytes that counts the calls of all processes together
 *   FAULT_LOG      file that receives a line "NUMBER CALL PATH" for each call
 *   FAULT_AT       number of the call to fail, from 1; 0 only logs
 *   FAULT_ERROR    errno of the failure; 0 kills the process instead, with SIGKILL
 *
 * A write that fails first, or dies, has written half of its bytes. EIO fails once. A disk that is
 * full stays so: all later calls fail too, but removals; with EROFS removals as well.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { REMOVES = 1 };
#define NEXT(name) ((__typeof__(&name))next_function(#name))

static char folder[PATH_MAX];
static size_t folder_length;
static long fault_at;
static int fault_error, log_file = -1;
static long *counter;

static void *next_function(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) void fault_arm(void) {
    const char *root = getenv("FAULT_FOLDER"), *count = getenv("FAULT_COUNTER");
    const char *log = getenv("FAULT_LOG"), *at = getenv("FAULT_AT"), *error = getenv("FAULT_ERROR");
    folder_length = 0;
    if (!root || !count || !log || !at || !error || strlen(root) >= sizeof folder) return;
    int file = NEXT(open)(count, O_RDWR | O_CLOEXEC);
    void *page = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    log_file = NEXT(open)(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || page == MAP_FAILED || log_file < 0) {
        perror("fault_arm");
        _exit(99);
    }
    counter = page;
    fault_at = atol(at);
    fault_error = atoi(error);
    strcpy(folder, root);
    folder_length = strlen(root);
}

/* Write the absolute path of a name below an open folder into `path`. */
static const char *absolute(int directory, const char *name, char *path) {
    if (name[0] == '/') return name;
    ssize_t length = -1;
    if (directory == AT_FDCWD) {
        if (getcwd(path, PATH_MAX)) length = (ssize_t)strlen(path);
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        length = readlink(link, path, PATH_MAX - 1);
    }
    if (length < 0) return "";
    snprintf(path + length, (size_t)(PATH_MAX - length), name[0] ? "/%s" : "%s", name);
    return path;
}

/* Count and log a call; return 1 if it is the first to fail, 2 if a later one, with errno set. */
static int fails(const char *call, int directory, const char *name, int removes, int *dies) {
    if (!folder_length) return 0;
    int before = errno;
    char buffer[PATH_MAX], line[PATH_MAX + 64];
    const char *path = absolute(directory, name, buffer);
    errno = before;
    if (strncmp(path, folder, folder_length) || (path[folder_length] != '/' && path[folder_length]))
        return 0;
    long number = __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
    int size = snprintf(line, sizeof line, "%ld %s %s\n", number, call, path + folder_length);
    syscall(SYS_write, log_file, line, (size_t)size);
    errno = before;
    if (!fault_at || number < fault_at) return 0;
    if (!fault_error) {
        if (number > fault_at) return 0;
        if (dies) return *dies = 1;
        kill(getpid(), SIGKILL);
    }
    if (number > fault_at && (fault_error == EIO || (removes && fault_error != EROFS))) return 0;
    errno = fault_error;
    return number == fault_at ? 1 : 2;
}

/* Fail to write, the first time with half of the bytes written; -1 with errno, or no return. */
static ssize_t tear(int file, const void *bytes, size_t size, int failure, int dies) {
    int error = errno;
    if (failure == 1 && size > 1) syscall(SYS_write, file, bytes, size / 2);
    if (dies) kill(getpid(), SIGKILL);
    errno = error;
    return -1;
}

ssize_t write(int file, const void *bytes, size_t size) {
    int dies = 0, failure = fails("write", file, "", 0, &dies);
    if (failure) return tear(file, bytes, size, failure, dies);
    return NEXT(write)(file, bytes, size);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    int dies = 0, failure = fails("write", file, "", 0, &dies);
    if (failure) return tear(file, parts[0].iov_base, parts[0].iov_len, failure, dies);
    return NEXT(writev)(file, parts, count);
}

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT); }

#define OPEN(name, parameters, directory, arguments)                                   \
    int name parameters {                                                              \
        mode_t mode = 0;                                                               \
        if (flags & (O_CREAT | O_TMPFILE)) {                                           \
            va_list rest;                                                              \
            va_start(rest, flags);                                                     \
            mode = va_arg(rest, mode_t);                                               \
            va_end(rest);                                                              \
        }                                                                              \
        if (writes(flags) && fails("open", directory, path, 0, NULL)) return -1;       \
        return NEXT(name) arguments;                                                   \
    }
OPEN(open, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(openat, (int at, const char *path, int flags, ...), at, (at, path, flags, mode))
OPEN(openat64, (int at, const char *path, int flags, ...), at, (at, path, flags, mode))

#define FOPEN(name)                                                                    \
    FILE *name(const char *path, const char *mode) {                                   \
        if (strpbrk(mode, "wa+") && fails("open", AT_FDCWD, path, 0, NULL)) return NULL; \
        return NEXT(name)(path, mode);                                                 \
    }
FOPEN(fopen)
FOPEN(fopen64)

#define CALL(name, parameters, shown, directory, path, removes, arguments)             \
    int name parameters {                                                              \
        if (fails(shown, directory, path, removes, NULL)) return -1;                   \
        return NEXT(name) arguments;                                                   \
    }
CALL(fsync, (int file), "fsync", file, "", 0, (file))
CALL(fdatasync, (int file), "fsync", file, "", 0, (file))
CALL(ftruncate, (int file, off_t size), "truncate", file, "", 0, (file, size))
CALL(ftruncate64, (int file, off64_t size), "truncate", file, "", 0, (file, size))
CALL(mkdir, (const char *path, mode_t mode), "mkdir", AT_FDCWD, path, 0, (path, mode))
CALL(mkdirat, (int at, const char *path, mode_t mode), "mkdir", at, path, 0, (at, path, mode))
CALL(chmod, (const char *path, mode_t mode), "chmod", AT_FDCWD, path, 0, (path, mode))
CALL(fchmod, (int file, mode_t mode), "chmod", file, "", 0, (file, mode))
CALL(rename, (const char *from, const char *to), "rename", AT_FDCWD, to, 0, (from, to))
CALL(renameat, (int at, const char *from, int to_at, const char *to), "rename", to_at, to, 0,
     (at, from, to_at, to))
CALL(symlink, (const char *target, const char *path), "symlink", AT_FDCWD, path, 0, (target, path))
CALL(symlinkat, (const char *target, int at, const char *path), "symlink", at, path, 0,
     (target, at, path))
CALL(link, (const char *from, const char *path), "link", AT_FDCWD, path, 0, (from, path))
CALL(unlink, (const char *path), "unlink", AT_FDCWD, path, REMOVES, (path))
CALL(unlinkat, (int at, const char *path, int flags), "unlink", at, path, REMOVES,
     (at, path, flags))
CALL(rmdir, (const char *path), "rmdir", AT_FDCWD, path, REMOVES, (path))
