/* Timers and rarer waits for the tests of sim.py: each line is a name, a result and how many ns of the game's time it took.
 *     gcc -pthread -o timers timers.c -lrt */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

static long long ns(int clock) { struct timespec t; clock_gettime(clock, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
static struct timespec later(int clock, long d) { long long t = ns(clock) + d; return (struct timespec){t / 1000000000, t % 1000000000}; }
#define TOOK(name, call) { long long a = ns(1), r = (call); printf(name " %lld %lld\n", r, ns(1) - a); fflush(stdout); }

static volatile int alarms;
static void on_alarm(int _) { alarms++; }
static void on_thread(union sigval v) { alarms += v.sival_int; }

static void *spinner(void *_) { while (ns(1) < *(long long *)_) {} return 0; }

static void raw_spinner(long long until) {
    struct timespec now = {0};
    while (now.tv_sec * 1000000000LL + now.tv_nsec < until) syscall(SYS_clock_gettime, 1, &now);
}

int main(void) {
    struct timespec ms100 = {0, 100000000}, left;
    uint64_t count;
    signal(SIGALRM, on_alarm);

    int fd = timerfd_create(CLOCK_MONOTONIC, 0), date = timerfd_create(CLOCK_REALTIME, 0);
    struct itimerspec once = {{0}, {0, 100000000}}, every = {{0, 30000000}, {0, 20000000}}, at = {{0}, later(0, 250000000)}, now;
    timerfd_settime(fd, 0, &once, 0);
    TOOK("timerfd", read(fd, &count, 8)); printf("count %d\n", (int)count);
    timerfd_settime(fd, 0, &every, 0);
    struct pollfd p = {fd, POLLIN};
    TOOK("timerfd_poll", poll(&p, 1, -1)); read(fd, &count, 8);
    TOOK("timerfd_again", poll(&p, 1, 1000)); read(fd, &count, 8);
    timerfd_gettime(fd, &now); printf("timerfd_left %ld %ld\n", now.it_value.tv_nsec, now.it_interval.tv_nsec);
    timerfd_settime(fd, 0, &(struct itimerspec){{0}, {0}}, 0);
    TOOK("timerfd_off", poll(&p, 1, 100));
    timerfd_settime(date, TFD_TIMER_ABSTIME, &(struct itimerspec){{0}, later(0, 100000000)}, 0); (void)at;
    TOOK("timerfd_date", read(date, &count, 8));

    struct itimerval tick = {{0, 40000}, {0, 100000}}, off = {{0}, {0}}, was;
    setitimer(ITIMER_REAL, &tick, 0);
    TOOK("itimer_pause", (pause(), alarms));
    TOOK("itimer_sleep", nanosleep(&(struct timespec){1, 0}, &left) == -1 && errno == EINTR); printf("rest %ld\n", left.tv_nsec);
    setitimer(ITIMER_REAL, &off, &was); printf("itimer_left %ld %ld\n", (long)was.it_value.tv_usec, (long)was.it_interval.tv_usec);
    alarm(3); usleep(500000); TOOK("alarm_left", alarm(1));
    TOOK("alarm", (pause(), alarms));
    signal(SIGALRM, SIG_IGN); alarm(1); TOOK("alarm_ignored", nanosleep(&(struct timespec){2, 0}, 0));
    signal(SIGALRM, on_alarm);

    timer_t timer;
    timer_create(CLOCK_MONOTONIC, 0, &timer);
    timer_settime(timer, 0, &every, 0);
    alarms = 0; TOOK("timer", (pause(), pause(), alarms));
    timer_gettime(timer, &now); printf("timer_left %ld %ld\n", now.it_value.tv_nsec, now.it_interval.tv_nsec);
    TOOK("timer_delete", timer_delete(timer));
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_thread, .sigev_value.sival_int = 7};
    timer_create(CLOCK_REALTIME, &event, &timer);
    alarms = 0; timer_settime(timer, 0, &once, 0);
    TOOK("timer_thread", (usleep(150000), alarms));

    struct mq_attr attr = {0, 2, 8};
    mqd_t queue = mq_open("/nitrogen-test", O_CREAT | O_RDWR, 0600, &attr); mq_unlink("/nitrogen-test");
    char text[8];
    struct timespec t = later(0, 100000000);
    TOOK("mq", queue == (mqd_t)-1 ? 1 : mq_timedreceive(queue, text, 8, 0, &t) == -1 && errno == ETIMEDOUT);
    int sem = semget(IPC_PRIVATE, 1, 0600);
    struct sembuf down = {0, -1, 0};
    TOOK("sem", semtimedop(sem, &down, 1, &ms100) == -1 && errno == EAGAIN); semctl(sem, 0, IPC_RMID);
    uint32_t word = 0;
    struct { uint64_t value, address; uint32_t flags, zero; } waiter = {0, (uint64_t)&word, 2, 0};
    t = later(1, 100000000); TOOK("futex_waitv", syscall(449, &waiter, 1, 0, &t, 1) == -1 && errno == ETIMEDOUT);
    t = later(1, 100000000); TOOK("futex_wait", syscall(455, &word, 0, ~0u, 2, &t, 1) == -1 && errno == ETIMEDOUT);
    t = later(0, 100000000); TOOK("futex_bitset", syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &t, 0, ~0u) == -1 && errno == ETIMEDOUT);
    sigset_t set; sigemptyset(&set); sigaddset(&set, SIGUSR1); sigprocmask(SIG_BLOCK, &set, 0);
    TOOK("sigtimedwait", sigtimedwait(&set, 0, &ms100) == -1 && errno == EAGAIN);
    TOOK("io_uring", syscall(425, 4, 0) == -1 && errno == ENOSYS);

    long long until = ns(1) + 50000000;
    pthread_t threads[2];
    TOOK("spin", (spinner(&until), 0));
    until = ns(1) + 50000000;
    for (int i = 0; i < 2; i++) pthread_create(threads + i, 0, spinner, &until);
    TOOK("spin_threads", (pthread_join(threads[0], 0), pthread_join(threads[1], 0)));

    until = ns(1) + 5000000;
    TOOK("spin_call", (raw_spinner(until), 0));
    setitimer(ITIMER_REAL, &(struct itimerval){{0}, {0, 5000}}, 0);
    TOOK("spin_timer", ({ do getitimer(ITIMER_REAL, &was); while (was.it_value.tv_usec); 0; }));
    unsigned long long begun = __rdtsc();
    TOOK("spin_rdtsc", ({ while (__rdtsc() - begun < 10000000); 0; }));

    unsigned char random[8]; getrandom(random, 8, 0);
    printf("random"); for (int i = 0; i < 8; i++) printf("%02x", random[i]); puts(" 0 0");
    unsigned long long a = __rdtsc(); unsigned cpu; usleep(100000); printf("rdtsc %d %lld\n", 0, (long long)(__rdtscp(&cpu) - a));
    return 0;
}
