/* Threads that wake one another and go on, for the tests of clock/: prints who began and ended its work, in that order.
 *     gcc -pthread -o turns turns.c */
#include <pthread.h>
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

int main(void) {
    pthread_t thread;
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
