/* Threads that wake one another and go on, for the tests of clock/: prints who began and ended its work, in that order.
 *     gcc -pthread -o turns turns.c */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>

enum { THREADS = 3, ROUNDS = 5 };
static char order[1000];
static volatile int count;
static sem_t go[THREADS], done;

static void work(char who) {
    order[count++] = who;
    for (volatile int i = 0; i < 1000000; i++) {}
    order[count++] = who;
}

static void *helper(void *number) {
    long i = (long)number;
    for (;; sem_wait(go + i)) work('a' + i), sem_post(&done);
}

static volatile int ready;

static void *begins(void *nothing) {
    ready = 1;
    return nothing;
}

/* 15 times wait for a thread in a loop that asks nobody, or only to yield. */
static void loops(void) {
    pthread_t thread;
    for (int i = 0; i < 15; i++) {
        ready = 0;
        pthread_create(&thread, 0, begins, 0);
        while (!ready) if (i & 1) sched_yield();
        pthread_join(thread, 0);
    }
}

int main(int count_of_words, char **words) {
    pthread_t thread;
    if (count_of_words > 1) {
        loops();
        puts(words[1]);
        return 0;
    }
    sem_init(&done, 0, 0);
    for (int i = 0; i < THREADS; i++) sem_init(go + i, 0, 0);
    for (long i = 0; i < THREADS; i++) pthread_create(&thread, 0, helper, (void *)i);
    for (int round = 0; round < ROUNDS; round++) {
        if (round) for (int i = THREADS - 1; i >= 0; i--) sem_post(go + i);
        work('m');
        for (int i = 0; i < THREADS; i++) sem_wait(&done);
    }
    puts(order);
    return 0;
}
