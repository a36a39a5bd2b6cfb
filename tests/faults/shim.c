// Stands between a process and the system (LD_PRELOAD), and makes one of the calls about a file fail.
//
//   FAULTS_PATH   what the paths of these files begin with
//   FAULTS_KIND   EIO: any call; ENOSPC: what takes room; EINTR: what waits; SHORT: half of what is read or written;
//                 SYNC: syncing; POWER: the power goes, and of what was not synced each write is lost or not
//   FAULTS_AT     which of the calls that can fail like this; 0: none
//   FAULTS_SEED   which of the writes are lost
//   FAULTS_COUNT  the file that says at the end how many there were

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPEN = 1, CREATE = 2, READ = 4, WRITE = 8, SYNC = 16, TRUNCATE = 32, UNLINK = 64, LOCK = 128, MAP = 256, RENAME = 512, STAT = 1024 };

#define FDS 4096
static unsigned char tracked[FDS];
static const char *prefix;
static int kinds, at, calls, error, halves, power;
static unsigned seed;
static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

#define REAL(name) ({ static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name); real; })

// A change that was not synced: what was there before.
struct change {
  struct change *before;
  dev_t device;
  ino_t inode;
  int fd;
  off_t offset, size;
  size_t length;
  char *old;
};
static struct change *changes;

__attribute__((constructor)) static void begin(void) {
  const char *kind = getenv("FAULTS_KIND");
  prefix = getenv("FAULTS_PATH");
  at = getenv("FAULTS_AT") ? atoi(getenv("FAULTS_AT")) : 0;
  seed = getenv("FAULTS_SEED") ? (unsigned)atoi(getenv("FAULTS_SEED")) : 1;
  if (!prefix || !kind) return;
  if (!strcmp(kind, "EIO")) kinds = ~0, error = EIO;
  if (!strcmp(kind, "ENOSPC")) kinds = CREATE | WRITE | TRUNCATE | MAP, error = ENOSPC;
  if (!strcmp(kind, "EINTR")) kinds = OPEN | CREATE | READ | WRITE | SYNC | TRUNCATE | LOCK, error = EINTR;
  if (!strcmp(kind, "SHORT")) kinds = READ | WRITE, halves = 1;
  if (!strcmp(kind, "SYNC")) kinds = SYNC, error = EIO;
  if (!strcmp(kind, "POWER")) kinds = WRITE | SYNC | TRUNCATE | UNLINK, power = 1;
}

__attribute__((destructor)) static void end(void) {
  const char *path = getenv("FAULTS_COUNT");
  FILE *file = path ? fopen(path, "w") : NULL;
  if (file) fprintf(file, "%d\n", calls), fclose(file);
}

static void lose_power(void) {
  for (struct change *change = changes; change; change = change->before) {
    seed = seed * 1103515245 + 12345;
    if (seed >> 16 & 1) continue;
    REAL(pwrite64)(change->fd, change->old, change->length, change->offset);
    struct stat now;
    if (!REAL(fstat)(change->fd, &now) && now.st_size > change->size) REAL(ftruncate64)(change->fd, change->size);
  }
  end();
  _exit(137);
}

// Whether this call fails.
static int fails(int kind) {
  if (!(kinds & kind)) return 0;
  pthread_mutex_lock(&mutex);
  int now = ++calls == at;
  if (now && power) lose_power();
  pthread_mutex_unlock(&mutex);
  if (now && error) errno = error;
  return now;
}

static int ours(int fd) { return fd >= 0 && fd < FDS && tracked[fd]; }
static int named(const char *path) { return prefix && path && !strncmp(path, prefix, strlen(prefix)); }

static void remember(int fd, off_t offset, size_t length) {
  struct stat before;
  if (!power || REAL(fstat)(fd, &before)) return;
  struct change *change = calloc(1, sizeof *change);
  change->device = before.st_dev, change->inode = before.st_ino, change->fd = fcntl(fd, F_DUPFD_CLOEXEC, 1000);
  change->offset = offset, change->size = before.st_size, change->old = calloc(1, length + 1);
  ssize_t old = REAL(pread64)(fd, change->old, length, offset);
  change->length = old > 0 ? (size_t)old : 0;
  pthread_mutex_lock(&mutex);
  change->before = changes, changes = change;
  pthread_mutex_unlock(&mutex);
}

static void synced(int fd) {
  struct stat now;
  if (!power || REAL(fstat)(fd, &now)) return;
  pthread_mutex_lock(&mutex);
  for (struct change **link = &changes; *link;) {
    struct change *change = *link;
    if (change->device != now.st_dev || change->inode != now.st_ino) {
      link = &change->before;
      continue;
    }
    *link = change->before;
    REAL(close)(change->fd);
    free(change->old), free(change);
  }
  pthread_mutex_unlock(&mutex);
}

static int opened(const char *path, int flags, int fd) {
  if (fd >= 0 && fd < FDS) tracked[fd] = (unsigned char)(named(path) && !(flags & O_DIRECTORY));
  return fd;
}

#define MODE(flags) \
  mode_t mode = 0; \
  if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
#define FAILS_TO_OPEN(path, flags) (named(path) && fails(flags & O_CREAT ? CREATE : OPEN))

int open(const char *path, int flags, ...) { MODE(flags) if (FAILS_TO_OPEN(path, flags)) return -1; return opened(path, flags, REAL(open)(path, flags, mode)); }
int open64(const char *path, int flags, ...) { MODE(flags) if (FAILS_TO_OPEN(path, flags)) return -1; return opened(path, flags, REAL(open64)(path, flags, mode)); }
int openat(int at_fd, const char *path, int flags, ...) { MODE(flags) if (FAILS_TO_OPEN(path, flags)) return -1; return opened(path, flags, REAL(openat)(at_fd, path, flags, mode)); }
int openat64(int at_fd, const char *path, int flags, ...) { MODE(flags) if (FAILS_TO_OPEN(path, flags)) return -1; return opened(path, flags, REAL(openat64)(at_fd, path, flags, mode)); }

int close(int fd) {
  if (fd >= 0 && fd < FDS) tracked[fd] = 0;
  return REAL(close)(fd);
}

#define TRANSFER(kind, call, length, note) \
  if (ours(fd) && fails(kind)) { if (!halves) return -1; length = length > 1 ? length / 2 : length; } \
  if (ours(fd)) { note; } \
  return call;

ssize_t read(int fd, void *to, size_t length) { TRANSFER(READ, REAL(read)(fd, to, length), length, ) }
ssize_t pread(int fd, void *to, size_t length, off_t from) { TRANSFER(READ, REAL(pread)(fd, to, length, from), length, ) }
ssize_t pread64(int fd, void *to, size_t length, off64_t from) { TRANSFER(READ, REAL(pread64)(fd, to, length, from), length, ) }
ssize_t write(int fd, const void *from, size_t length) { TRANSFER(WRITE, REAL(write)(fd, from, length), length, remember(fd, lseek(fd, 0, SEEK_CUR), length)) }
ssize_t pwrite(int fd, const void *from, size_t length, off_t to) { TRANSFER(WRITE, REAL(pwrite)(fd, from, length, to), length, remember(fd, to, length)) }
ssize_t pwrite64(int fd, const void *from, size_t length, off64_t to) { TRANSFER(WRITE, REAL(pwrite64)(fd, from, length, to), length, remember(fd, to, length)) }

#define SYNCS(name) \
  int name(int fd) { \
    if (ours(fd) && fails(SYNC)) return -1; \
    int done = REAL(name)(fd); \
    if (!done && ours(fd)) synced(fd); \
    return done; \
  }
SYNCS(fsync)
SYNCS(fdatasync)

static void cut(int fd, off_t to) {
  struct stat now;
  if (power && !REAL(fstat)(fd, &now) && now.st_size > to) remember(fd, to, (size_t)(now.st_size - to));
}
int ftruncate(int fd, off_t to) { if (ours(fd) && fails(TRUNCATE)) return -1; if (ours(fd)) cut(fd, to); return REAL(ftruncate)(fd, to); }
int ftruncate64(int fd, off64_t to) { if (ours(fd) && fails(TRUNCATE)) return -1; if (ours(fd)) cut(fd, to); return REAL(ftruncate64)(fd, to); }

int fstat(int fd, struct stat *to) { return ours(fd) && fails(STAT) ? -1 : REAL(fstat)(fd, to); }
int fstat64(int fd, struct stat64 *to) { return ours(fd) && fails(STAT) ? -1 : REAL(fstat64)(fd, to); }
int stat(const char *path, struct stat *to) { return named(path) && fails(STAT) ? -1 : REAL(stat)(path, to); }
int stat64(const char *path, struct stat64 *to) { return named(path) && fails(STAT) ? -1 : REAL(stat64)(path, to); }
int lstat(const char *path, struct stat *to) { return named(path) && fails(STAT) ? -1 : REAL(lstat)(path, to); }
int lstat64(const char *path, struct stat64 *to) { return named(path) && fails(STAT) ? -1 : REAL(lstat64)(path, to); }
int statx(int fd, const char *path, int flags, unsigned int mask, struct statx *to) { return (named(path) || ours(fd)) && fails(STAT) ? -1 : REAL(statx)(fd, path, flags, mask, to); }

int unlink(const char *path) { return named(path) && fails(UNLINK) ? -1 : REAL(unlink)(path); }
int rename(const char *from, const char *to) { return (named(from) || named(to)) && fails(RENAME) ? -1 : REAL(rename)(from, to); }

static int is_lock(int command) { return command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK; }
int fcntl(int fd, int command, ...) { va_list more; va_start(more, command); void *argument = va_arg(more, void *); va_end(more); return ours(fd) && is_lock(command) && fails(LOCK) ? -1 : REAL(fcntl)(fd, command, argument); }
int fcntl64(int fd, int command, ...) { va_list more; va_start(more, command); void *argument = va_arg(more, void *); va_end(more); return ours(fd) && is_lock(command) && fails(LOCK) ? -1 : REAL(fcntl64)(fd, command, argument); }

int flock(int fd, int operation) { return ours(fd) && fails(LOCK) ? -1 : REAL(flock)(fd, operation); }

void *mmap(void *where, size_t length, int rights, int flags, int fd, off_t from) { return ours(fd) && fails(MAP) ? MAP_FAILED : REAL(mmap)(where, length, rights, flags, fd, from); }
void *mmap64(void *where, size_t length, int rights, int flags, int fd, off64_t from) { return ours(fd) && fails(MAP) ? MAP_FAILED : REAL(mmap64)(where, length, rights, flags, fd, from); }
