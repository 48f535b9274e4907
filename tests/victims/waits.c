/* Every clock, and every kind of wait in several threads at once, for the tests of sim.py.
 *     gcc -pthread -o waits waits.c          also -static
 * Lines: clock ID ns, and WAIT THREAD RESULT ns (how long it took by the game's own clock). */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long ns(int clock) { struct timespec t; clock_gettime(clock, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
static struct timespec later(int clock, long d) { long long t = ns(clock) + d; return (struct timespec){t / 1000000000, t % 1000000000}; }
#define TOOK(name, call) { long long a = ns(1); long r = (call); printf(name " %ld %ld %lld\n", me, r, ns(1) - a); }

static int ids[] = {1, 4, 6, 7, 9, 0, 5, 8, 11};

static void *writer(void *pipe) { usleep(30000); write(*(int *)pipe, "x", 1); return 0; }

static void *waits(void *number) {
    long me = (long)number;
    usleep(7000 * me);                                              /* so that the threads' deadlines differ */
    int agree = 0, tube[2];
    for (int i = 0; i < 9; i++) agree += ns(ids[i]) - ns(1) == (i < 5 ? 0 : ns(0) - ns(1));
    printf("agree %ld %d 0\n", me, agree);

    struct timespec t, u = {0, 100000000};
    struct timeval v = {0, 100000};
    TOOK("nanosleep", nanosleep(&u, 0));
    t = later(1, 100000000); TOOK("sleep_until", clock_nanosleep(1, TIMER_ABSTIME, &t, 0));
    t = later(0, 100000000); TOOK("sleep_until_date", clock_nanosleep(0, TIMER_ABSTIME, &t, 0));
    TOOK("poll_nothing", poll(0, 0, 100));
    TOOK("select_nothing", select(0, 0, 0, 0, &v));
    pipe(tube);
    struct pollfd p = {tube[0], POLLIN, 0}; TOOK("poll", poll(&p, 1, 100));
    TOOK("ppoll", ppoll(&p, 1, &u, 0));
    fd_set s; v = (struct timeval){0, 100000}; FD_ZERO(&s); FD_SET(tube[0], &s); TOOK("select", select(tube[0] + 1, &s, 0, 0, &v));
    printf("select_set %ld %d 0\n", me, !!FD_ISSET(tube[0], &s));
    FD_SET(tube[0], &s); TOOK("pselect", pselect(tube[0] + 1, &s, 0, 0, &u, 0));
    int e = epoll_create(1); struct epoll_event ev = {EPOLLIN}; epoll_ctl(e, EPOLL_CTL_ADD, tube[0], &ev);
    TOOK("epoll", epoll_wait(e, &ev, 1, 100));
    TOOK("epoll_pwait", epoll_pwait(e, &ev, 1, 100, 0));
    TOOK("epoll_pwait2", syscall(441, e, &ev, 1, &u, 0, 8));
    sem_t sem; sem_init(&sem, 0, 0); t = later(0, 100000000); TOOK("sem", sem_timedwait(&sem, &t) == -1 && errno == ETIMEDOUT);
    t = later(0, -100000000); TOOK("sem_past", sem_timedwait(&sem, &t) == -1 && errno == ETIMEDOUT);
    pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER; pthread_cond_t c = PTHREAD_COND_INITIALIZER; pthread_mutex_lock(&m);
    t = later(0, 100000000); TOOK("cond", pthread_cond_timedwait(&c, &m, &t) == ETIMEDOUT);
    pthread_t w; pthread_create(&w, 0, writer, tube + 1); TOOK("poll_woken", poll(&p, 1, 100)); pthread_join(w, 0);
    TOOK("poll_ready", poll(&p, 1, 100));
    return 0;
}

int main(void) {
    for (int i = 0; i < 9; i++) printf("clock %d %lld\n", ids[i], ns(ids[i]));
    struct timeval v; gettimeofday(&v, 0); printf("gettimeofday %lld\n", v.tv_sec * 1000000000LL + v.tv_usec * 1000);
    printf("time %lld\n", time(0) * 1000000000LL);
    struct timespec t; syscall(SYS_clock_gettime, 1, &t); printf("raw %lld\n", t.tv_sec * 1000000000LL + t.tv_nsec);
    syscall(SYS_gettimeofday, &v, 0); printf("raw_gettimeofday %lld\n", v.tv_sec * 1000000000LL + v.tv_usec * 1000);
    printf("raw_time %lld\n", syscall(SYS_time, 0) * 1000000000LL);
    printf("cpu %d\n", ns(2) < 5000000000LL && ns(3) < 5000000000LL);
    pthread_t threads[4];
    for (long i = 0; i < 4; i++) pthread_create(threads + i, 0, waits, (void *)i);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    return 0;
}
