/* Counts a process's changes of the files below one folder, and lets the nth of a kind go wrong.

   Loaded by LD_PRELOAD. Armed by lookalike_fault_arm, or by the variable LOOKALIKE_FAULT:
   "ROOT<tab>KIND<tab>ACTION<tab>N<tab>TRACE", N from 1 (0: none), TRACE a file or empty.

   kinds    write fsync rename open unlink
   actions  kill    SIGKILL before it      killed  SIGKILL right after it
            torn    half of it, SIGKILL    eio     it fails once
            full    half of it; from then on there is no space left
            tight   the same, and each file that is removed makes room for two writes
            denied  it fails, as does every change of names from then on
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
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX], kind[16], action[16];
static size_t root_length;
static long nth, counted, room;
static int trace = -1, full, tight, denied;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

void lookalike_fault_arm(const char *given) {
  char text[PATH_MAX * 2], *rest = text, *path;
  snprintf(text, sizeof text, "%s", given);
  root_length = 0, counted = 0, full = 0, tight = 0, denied = 0, room = 0;
  snprintf(root, sizeof root, "%s", strsep(&rest, "\t"));
  snprintf(kind, sizeof kind, "%s", strsep(&rest, "\t"));
  snprintf(action, sizeof action, "%s", strsep(&rest, "\t"));
  nth = atol(strsep(&rest, "\t"));
  path = rest ? rest : "";
  trace = *path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
  root_length = strlen(root);
}

__attribute__((constructor)) static void from_environment(void) {
  const char *given = getenv("LOOKALIKE_FAULT");
  if (given && *given) lookalike_fault_arm(given);
}

static int ours(const char *path) {
  return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* The path of an open file, and whether it is one of ours. */
static int file_path(int fd, char *path) {
  if (!root_length) return 0;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return ours(path);
}

/* An absolute path from the arguments of an *at call. */
static int at_path(int folder, const char *name, char *path) {
  if (!root_length) return 0;
  if (*name == '/')
    snprintf(path, PATH_MAX, "%s", name);
  else {
    char base[PATH_MAX];
    if (folder == AT_FDCWD) {
      if (!getcwd(base, sizeof base)) return 0;
    } else {
      char link[64];
      snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
      ssize_t length = readlink(link, base, sizeof base - 1);
      if (length < 0) return 0;
      base[length] = 0;
    }
    if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) return 0;
  }
  return ours(path);
}

static void note(const char *what, const char *path, const char *other, long long size) {
  if (trace < 0) return;
  char line[PATH_MAX * 2 + 64];
  int length = snprintf(line, sizeof line, "%s\t%s\t%s\t%lld\n", what, path, other, size);
  syscall(SYS_write, trace, line, length);
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

/* Counts one operation; returns the action if this is the one that goes wrong. */
static const char *strike(const char *what) {
  if (strcmp(what, kind) || __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST) != nth) return "";
  if (!strcmp(action, "kill")) die();
  if (!strcmp(action, "full")) full = 1;
  if (!strcmp(action, "tight")) full = tight = 1;
  if (!strcmp(action, "denied")) denied = 1;
  return action;
}

static int no_room(void) {
  return full && !(tight && __atomic_fetch_sub(&room, 1, __ATOMIC_SEQ_CST) > 0);
}

#define IS(found, name) (!strcmp(found, name))
#define FAIL(code) do { errno = code; return -1; } while (0)

ssize_t write(int fd, const void *data, size_t size) {
  char path[PATH_MAX];
  if (!file_path(fd, path)) return REAL(write)(fd, data, size);
  if (no_room()) FAIL(ENOSPC);
  const char *found = strike("write");
  if (IS(found, "tight")) FAIL(ENOSPC);
  if (IS(found, "eio")) FAIL(EIO);
  if ((IS(found, "torn") || IS(found, "full")) && size > 1) size /= 2;
  else if (IS(found, "full")) FAIL(ENOSPC);
  ssize_t done = REAL(write)(fd, data, size);
  if (done >= 0) note("write", path, "", done);
  if (IS(found, "torn") || IS(found, "killed")) die();
  return done;
}

/* The others that write are told as writes, and go wrong whole. */
#define WRITES(result, name, arguments, call, offset)                          \
  result name arguments {                                                      \
    char path[PATH_MAX];                                                       \
    if (!file_path(fd, path)) return REAL(name) call;                          \
    if (no_room()) FAIL(ENOSPC);                                               \
    const char *found = strike("write");                                       \
    if (IS(found, "eio")) FAIL(EIO);                                           \
    if (IS(found, "full")) FAIL(ENOSPC);                                       \
    if (IS(found, "torn")) die();                                              \
    result done = REAL(name) call;                                             \
    if (done >= 0) note("write", path, "", done);                              \
    if (IS(found, "killed")) die();                                            \
    return done;                                                               \
  }
WRITES(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), at)
WRITES(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), at)
WRITES(ssize_t, writev, (int fd, const struct iovec *data, int count), (fd, data, count), 0)

#define SYNCS(name)                                                            \
  int name(int fd) {                                                           \
    char path[PATH_MAX];                                                       \
    if (!file_path(fd, path)) return REAL(name)(fd);                           \
    const char *found = strike("fsync");                                       \
    if (IS(found, "eio")) FAIL(EIO);                                           \
    int done = REAL(name)(fd);                                                 \
    if (!done) note("fsync", path, "", 0);                                     \
    if (IS(found, "killed")) die();                                            \
    return done;                                                               \
  }
SYNCS(fsync)
SYNCS(fdatasync)

#define NAMES(what, noted, call)                                               \
  if (denied) FAIL(EACCES);                                                    \
  const char *found = strike(what);                                            \
  if (IS(found, "eio")) FAIL(EIO);                                             \
  if (IS(found, "denied")) FAIL(EACCES);                                       \
  int done = call;                                                             \
  if (!done) note(noted, path, other, 0);                                      \
  if (IS(found, "killed")) die();                                              \
  return done;
#define CHANGES(what, call) NAMES(what, what, call)

int renameat(int from, const char *old, int to, const char *new) {
  char path[PATH_MAX], other[PATH_MAX];
  int mine = at_path(from, old, path) | at_path(to, new, other);
  if (!mine) return REAL(renameat)(from, old, to, new);
  CHANGES("rename", REAL(renameat)(from, old, to, new))
}
int rename(const char *old, const char *new) { return renameat(AT_FDCWD, old, AT_FDCWD, new); }

/* A link gives a name as a rename does, and goes wrong with them. */
int linkat(int from, const char *old, int to, const char *new, int flags) {
  char path[PATH_MAX], other[PATH_MAX];
  int mine = at_path(from, old, path) | at_path(to, new, other);
  if (!mine) return REAL(linkat)(from, old, to, new, flags);
  if (full && !tight) FAIL(ENOSPC);
  NAMES("rename", "link", REAL(linkat)(from, old, to, new, flags))
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int unlinkat(int folder, const char *name, int flags) {
  char path[PATH_MAX], *other = "";
  if (!at_path(folder, name, path)) return REAL(unlinkat)(folder, name, flags);
  struct stat found_there;
  if (tight && !fstatat(folder, name, &found_there, AT_SYMLINK_NOFOLLOW)) __atomic_store_n(&room, 2, __ATOMIC_SEQ_CST);
  CHANGES("unlink", REAL(unlinkat)(folder, name, flags))
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int folder, const char *name, mode_t mode) {
  char path[PATH_MAX];
  if (!at_path(folder, name, path)) return REAL(mkdirat)(folder, name, mode);
  if (full && !tight) FAIL(ENOSPC);
  if (denied) FAIL(EACCES);
  int done = REAL(mkdirat)(folder, name, mode);
  if (!done) note("mkdir", path, "", 0);
  return done;
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

static int opened(int folder, const char *name, int flags, mode_t mode) {
  static int (*openat_)(int, const char *, int, ...);
  if (!openat_) openat_ = real("openat");
  char path[PATH_MAX];
  int changes = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
  if (!changes || !at_path(folder, name, path)) return openat_(folder, name, flags, mode);
  if (denied) FAIL(EACCES);
  const char *found = strike("open");
  if (IS(found, "denied")) FAIL(EACCES);
  if (IS(found, "eio")) FAIL(EIO);
  if (full && !tight) FAIL(ENOSPC);
  int fd = openat_(folder, name, flags, mode);
  if (fd >= 0) note(flags & O_TRUNC ? "create" : "open", path, "", 0);
  if (IS(found, "killed")) die();
  return fd;
}

#define OPENS(name, folder, ...)                                               \
  int name(__VA_ARGS__, const char *path, int flags, ...) {                    \
    va_list more;                                                              \
    va_start(more, flags);                                                     \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;    \
    va_end(more);                                                              \
    return opened(folder, path, flags, mode);                                  \
  }
OPENS(openat, folder, int folder)
OPENS(openat64, folder, int folder)
#undef OPENS
#define OPENS(name)                                                            \
  int name(const char *path, int flags, ...) {                                 \
    va_list more;                                                              \
    va_start(more, flags);                                                     \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;    \
    va_end(more);                                                              \
    return opened(AT_FDCWD, path, flags, mode);                                \
  }
OPENS(open)
OPENS(open64)
