/* The wall clock of a process tree, moved by the seconds that stand in a file ($CLOCK_FILE); other clocks are left alone.
   cc -shared -fPIC -nostdlib -o clock.so clock.c; it needs no headers, so a compiler alone builds it. */

#define REALTIME 0
#define REALTIME_COARSE 5
#ifdef __aarch64__
#define SYS_CLOCK_GETTIME 113
#else
#define SYS_CLOCK_GETTIME 228
#endif

struct timespec { long seconds, nanoseconds; };
struct timeval { long seconds, microseconds; };

extern long syscall(long number, ...);
extern char *getenv(const char *name);
extern int open(const char *path, int flags, ...);
extern void *mmap(void *at, unsigned long length, int protection, int flags, int file, long offset);

static const volatile long *ahead;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_FILE");
    int file = path ? open(path, 0) : -1;
    void *page = file < 0 ? (void *)-1 : mmap(0, sizeof(long), 1, 1, file, 0);
    if (page != (void *)-1) ahead = page;
}

int clock_gettime(int clock, struct timespec *now) {
    int result = (int)syscall(SYS_CLOCK_GETTIME, clock, now);
    if (!result && ahead && (clock == REALTIME || clock == REALTIME_COARSE)) now->seconds += *ahead;
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(REALTIME, &precise);
    now->seconds = precise.seconds;
    now->microseconds = precise.nanoseconds / 1000;
    return 0;
}

long time(long *where) {
    struct timespec now;
    clock_gettime(REALTIME, &now);
    if (where) *where = now.seconds;
    return now.seconds;
}
