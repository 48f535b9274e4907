/* A tiny game without SDL for the tests of sim.py, compiled without headers of X or GL:
 *     gcc -o bare bare.c -l:libX11.so.6 -l:libGL.so.1 -l:libEGL.so.1
 *     bare HOW          glx, egl, or x11: no function that presents, it draws and sleeps 20 ms; thread: x11 in another thread, while the
 *                       first waits for its end
 * As game.c: a 16 x 16 square moves by the arrow keys, red while space is pressed; the background tells the number of the frame. */
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long XID;
typedef struct { void *visual; XID id; int screen, depth; long rest[8]; } Visual;
void *XOpenDisplay(char *), *glXCreateContext(void *, Visual *, void *, int), *eglGetDisplay(void *), *XCreateGC(void *, XID, long, void *);
XID XCreateSimpleWindow(void *, XID, int, int, int, int, int, long, long), XDefaultRootWindow(void *);
int XMapWindow(void *, XID), XSync(void *, int), XQueryKeymap(void *, char *), XKeysymToKeycode(void *, long), XSetForeground(void *, void *, long);
int XFillRectangle(void *, XID, void *, int, int, int, int), glXMakeCurrent(void *, XID, void *), glXSwapBuffers(void *, XID), XMoveWindow(void *, XID, int, int);
Visual *glXChooseVisual(void *, int, int *);
void glClearColor(float, float, float, float), glClear(unsigned), glScissor(int, int, int, int), glEnable(unsigned);
int eglInitialize(void *, int *, int *), eglBindAPI(int), eglChooseConfig(void *, const int *, void **, int, int *);
void *eglCreateWindowSurface(void *, void *, XID, int *), *eglCreateContext(void *, void *, void *, int *);
int eglMakeCurrent(void *, void *, void *, void *), eglSwapBuffers(void *, void *);

enum { W = 160, H = 120, SPACE = 0x20, LEFT = 0xFF51, UP, RIGHT, DOWN };

static void *play(void *how) {
    void *display = XOpenDisplay(0), *egl = 0, *surface = 0, *config;
    XID window = XCreateSimpleWindow(display, XDefaultRootWindow(display), 40, 30, W, H, 0, 0, 0);
    void *gc = XCreateGC(display, window, 0, 0);
    int wanted[] = {4, 5, 0}, some[] = {0x3038}, count, x = W / 2, y = H / 2;               /* GLX_RGBA, GLX_DOUBLEBUFFER; EGL_NONE */
    XMapWindow(display, window), XMoveWindow(display, window, 40, 30), XSync(display, 0);
    if (!strcmp(how, "glx"))
        glXMakeCurrent(display, window, glXCreateContext(display, glXChooseVisual(display, 0, wanted), 0, 1));
    if (!strcmp(how, "egl")) {
        egl = eglGetDisplay(display), eglInitialize(egl, 0, 0), eglBindAPI(0x30A2), eglChooseConfig(egl, some, &config, 1, &count);
        surface = eglCreateWindowSurface(egl, config, window, 0);
        eglMakeCurrent(egl, surface, surface, eglCreateContext(egl, config, 0, 0));
    }
    if (strcmp(how, "x11") && strcmp(how, "thread"))
        glEnable(0x0C11);                                                                   /* GL_SCISSOR_TEST */
    for (int frame = 0;; frame++) {
        char keys[32];
        XQueryKeymap(display, keys);
        #define DOWN(symbol) (keys[XKeysymToKeycode(display, symbol) / 8] >> XKeysymToKeycode(display, symbol) % 8 & 1)
        x += DOWN(RIGHT) - DOWN(LEFT), y += DOWN(DOWN) - DOWN(UP);
        if (strcmp(how, "x11") && strcmp(how, "thread")) {
            glScissor(0, 0, W, H), glClearColor(0, 0, frame % 256 / 255.f, 1), glClear(0x4000);
            glScissor(x, H - y - 16, 16, 16), glClearColor(1, DOWN(SPACE) ? 0 : 1, 0, 1), glClear(0x4000);
            egl ? eglSwapBuffers(egl, surface) : glXSwapBuffers(display, window);
        } else {
            XSetForeground(display, gc, frame % 256), XFillRectangle(display, window, gc, 0, 0, W, H);
            XSetForeground(display, gc, DOWN(SPACE) ? 0xFF0000 : 0xFFFF00), XFillRectangle(display, window, gc, x, y, 16, 16);
            XSync(display, 0), usleep(20000);
        }
    }
}

int main(int n, char **args) {
    pthread_t thread;
    if (strcmp(args[1], "thread")) play(args[1]);
    pthread_create(&thread, 0, play, args[1]);
    return pthread_join(thread, 0);
}
