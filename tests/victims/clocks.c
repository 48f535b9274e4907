/* A Windows "game": prints what its clocks show, once per frame.
     clocks [busy|sleep|wait|million] [ms]     how it waits between two frames (0: like a game, not at all); million: reads a million times
   Each line: T frame QueryPerformanceCounter GetTickCount GetTickCount64 timeGetTime GetSystemTimeAsFileTime ...Precise, in 100 ns */
#include <windows.h>
#include <mmsystem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static LONGLONG frequency;

static LONGLONG counter(void) {
    LARGE_INTEGER value;
    QueryPerformanceCounter(&value);
    return value.QuadPart / (frequency / 10000000.0);
}

static LONGLONG date(void (WINAPI *read)(FILETIME *)) {
    FILETIME value;
    read(&value);
    return ((LONGLONG)value.dwHighDateTime << 32) | value.dwLowDateTime;
}

static LONGLONG look(int clock) {
    switch (clock) {
    case 0: return counter();
    case 1: return GetTickCount() * 10000LL;
    case 2: return GetTickCount64() * 10000LL;
    case 3: return timeGetTime() * 10000LL;
    case 4: return date(GetSystemTimeAsFileTime);
    default: return date(GetSystemTimePreciseAsFileTime);
    }
}

static void million(void) {
    LONGLONG last[6] = {0}, begin = counter();
    int backward = 0;
    for (int i = 0; i < 1000000; i++) {
        LONGLONG now = look(i % 6);
        backward += now < last[i % 6];
        last[i % 6] = now;
    }
    printf("M %d %lld\n", backward, counter() - begin);
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "busy";
    int ms = argc > 2 ? atoi(argv[2]) : 2;
    LARGE_INTEGER value;
    QueryPerformanceFrequency(&value);
    frequency = value.QuadPart;
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("START %d %lu\n", (int)sizeof(void *) * 8, GetCurrentProcessId());
    for (int frame = 0;; frame++) {
        LONGLONG at[6];
        for (int i = 0; i < 6; i++)
            at[i] = look(i);
        printf("T %d %lld %lld %lld %lld %lld %lld\n", frame, at[0], at[1], at[2], at[3], at[4], at[5]);
        if (!strcmp(how, "million"))
            million();
        else if (!strcmp(how, "sleep"))
            Sleep(ms);
        else if (!strcmp(how, "wait"))
            WaitForSingleObject(GetCurrentProcess(), ms);
        else
            while (counter() < at[0] + ms * 10000LL)
                ;
    }
}
