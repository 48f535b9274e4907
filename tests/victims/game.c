/* A tiny SDL game for the tests of sim.py, compiled without SDL's headers:
 *     gcc -o game game.c -l:libSDL2-2.0.so.0          or  -DSDL3 -l:libSDL3.so.0
 *     game HOW [WHAT [FRAME]]
 * HOW it shows its frames:  renderer, surface, gl.
 * WHAT it does at FRAME:    play (nothing special), crash, hang, exit, close (its window, and goes on), fork (a child plays, it waits).
 * A 16 x 16 square moves by the left stick of the first joystick or by the arrow keys, one pixel a frame; it is red while the first
 * button or the space bar is pressed.  Every frame lasts at least 10 ms by its own clock. */
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef SDL3
typedef struct { float x, y, w, h; } Rect;
typedef struct { int x, y, w, h; } SurfaceRect;
typedef struct { uint32_t flags, format; int w, h, pitch; void *pixels; } Surface;
void *SDL_CreateWindow(const char *, int, int, uint64_t), *SDL_CreateRenderer(void *, const char *);
uint32_t *SDL_GetJoysticks(int *);
#define SDL_CreateWindow(title, x, y, w, h, flags) SDL_CreateWindow(title, w, h, flags)
#define SDL_CreateRenderer(window, driver, flags) SDL_CreateRenderer(window, "software")
#define SDL_NumJoysticks() ({ int n = 0; SDL_GetJoysticks(&n); n; })
#define SDL_JoystickOpen(i) SDL_OpenJoystick(SDL_GetJoysticks(0)[i])
#define SDL_JoystickGetAxis SDL_GetJoystickAxis
#define SDL_JoystickGetButton SDL_GetJoystickButton
#define SDL_FillRect SDL_FillSurfaceRect
void *SDL_OpenJoystick(uint32_t);
uint64_t SDL_GetTicks(void);
#else
typedef struct { int x, y, w, h; } Rect, SurfaceRect;
typedef struct { uint32_t flags; void *format; int w, h, pitch; void *pixels; } Surface;
void *SDL_CreateWindow(const char *, int, int, int, int, uint32_t), *SDL_CreateRenderer(void *, int, uint32_t), *SDL_JoystickOpen(int);
int SDL_NumJoysticks(void);
uint32_t SDL_GetTicks(void);
#endif
int SDL_Init(uint32_t), SDL_PollEvent(void *), SDL_RenderClear(void *), SDL_RenderFillRect(void *, const Rect *);
int SDL_SetRenderDrawColor(void *, uint8_t, uint8_t, uint8_t, uint8_t), SDL_FillRect(Surface *, const SurfaceRect *, uint32_t), SDL_UpdateWindowSurface(void *);
void *SDL_GL_CreateContext(void *), *SDL_GL_GetProcAddress(const char *);
void SDL_RenderPresent(void *), SDL_GL_SwapWindow(void *), SDL_Delay(uint32_t), SDL_DestroyWindow(void *);
Surface *SDL_GetWindowSurface(void *);
int16_t SDL_JoystickGetAxis(void *, int);
uint8_t SDL_JoystickGetButton(void *, int);
const uint8_t *SDL_GetKeyboardState(int *);

enum { W = 160, H = 120, JOYSTICK = 0x200, VIDEO = 0x20, OPENGL = 2, SPACE = 44, RIGHT = 79, LEFT = 80, DOWN = 81, UP = 82 };

int main(int n, char **args) {
    const char *how = args[1], *what = n > 2 ? args[2] : "play";
    int last = n > 3 ? atoi(args[3]) : 0, x = W / 2, y = H / 2;
    if (!strcmp(what, "fork") && fork()) { wait(0); return 0; }
    SDL_Init(strcmp(what, "deaf") ? VIDEO | JOYSTICK : VIDEO);
    void *window = SDL_CreateWindow("victim", 0x1FFF0000, 0x1FFF0000, W, H, strcmp(how, "gl") ? 0 : OPENGL);
    void *renderer = strcmp(how, "renderer") ? 0 : SDL_CreateRenderer(window, -1, 1);
    void *joystick = SDL_NumJoysticks() > 0 ? SDL_JoystickOpen(0) : 0;
    void (*clear_colour)(float, float, float, float) = 0, (*clear)(uint32_t) = 0, (*scissor)(int, int, int, int) = 0, (*enable)(uint32_t) = 0;
    if (!strcmp(how, "gl")) {
        SDL_GL_CreateContext(window);
        clear_colour = SDL_GL_GetProcAddress("glClearColor"), clear = SDL_GL_GetProcAddress("glClear");
        scissor = SDL_GL_GetProcAddress("glScissor"), enable = SDL_GL_GetProcAddress("glEnable");
        enable(0x0C11);                                             /* GL_SCISSOR_TEST */
    }
    for (int frame = 0;; frame++) {
        uint32_t began = SDL_GetTicks();
        char event[128];
        while (SDL_PollEvent(event) & 1) {}
        const uint8_t *keys = SDL_GetKeyboardState(0);
        int stick_x = joystick ? SDL_JoystickGetAxis(joystick, 0) : 0, stick_y = joystick ? SDL_JoystickGetAxis(joystick, 1) : 0;
        x += (stick_x > 16000 || keys[RIGHT]) - (stick_x < -16000 || keys[LEFT]);
        y += (stick_y > 16000 || keys[DOWN]) - (stick_y < -16000 || keys[UP]);
        int red = keys[SPACE] || (joystick && SDL_JoystickGetButton(joystick, 0));
        if (frame == last && last) {
            if (!strcmp(what, "crash")) raise(SIGSEGV);
            if (!strcmp(what, "hang")) for (volatile int i = 0;; i++) {}
            if (!strcmp(what, "exit")) return 3;
            if (!strcmp(what, "close")) { SDL_DestroyWindow(window); for (;;) SDL_Delay(10); }
        }
        Rect square = {x, y, 16, 16};
        if (renderer) {
            SDL_SetRenderDrawColor(renderer, 0, 0, frame % 256, 255), SDL_RenderClear(renderer);
            SDL_SetRenderDrawColor(renderer, 255, red ? 0 : 255, 0, 255), SDL_RenderFillRect(renderer, &square);
            SDL_RenderPresent(renderer);
        } else if (clear) {
            scissor(0, 0, W, H), clear_colour(0, 0, frame % 256 / 255.f, 1), clear(0x4000);
            scissor(x, H - y - 16, 16, 16), clear_colour(1, red ? 0 : 1, 0, 1), clear(0x4000);
            SDL_GL_SwapWindow(window);
        } else {
            Surface *surface = SDL_GetWindowSurface(window);
            SDL_FillRect(surface, 0, frame % 256), SDL_FillRect(surface, &(SurfaceRect){x, y, 16, 16}, red ? 0xFF0000 : 0xFFFF00);
            SDL_UpdateWindowSurface(window);
        }
        while (SDL_GetTicks() - began < 10) SDL_Delay(1);
    }
}
