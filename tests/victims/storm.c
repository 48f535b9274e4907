// Threads and processes that live for a moment, and signals that are counted: what attaching may neither miss nor lose.
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_long got;
static volatile sig_atomic_t end;

static void count(int number) { atomic_fetch_add(&got, 1); }
static void stop(int number) { end = 1; }
static void *moment(void *_) { usleep(300); return 0; }

int main(void)
{
    signal(SIGRTMIN, count), signal(SIGTERM, stop);
    puts("ready"), fflush(stdout);
    while (!end) {
        pthread_t some[3];
        for (int i = 0; i < 3; i++) pthread_create(some + i, 0, moment, 0);
        for (int i = 0; i < 3; i++) pthread_join(some[i], 0);
        if (!fork()) _exit(0);
        wait(0);
    }
    printf("%ld\n", atomic_load(&got));
}
