# The code that sim.py's clock hook puts into a game: it answers clock_gettime, gettimeofday and time, and calls functions.
# sim.py maps one shared file into the game: this code at `base` (r-x), and behind it its data (rw):
#     now      u64  virtual CLOCK_MONOTONIC, ns          one aligned word: a store by sim.py is atomic
#     offsets  s64 [12]  of each clock from CLOCK_MONOTONIC, ns
#     spins    {u64 moment, u32 count, u32} [256]        how often in a row a stack has read the same moment
#     table    {u64 function, arguments [7]} []       for `calls`: the last becomes the result; a null function ends it
# The first 16 bytes of each vDSO function are overwritten by a jump to its counterpart here.
# clock/kernel.py holds the bytes as STUB; tests/clock/test_hook.py assembles this file and compares:
#     as --64 -o stub.o stub.S && objcopy -O binary -j .text stub.o stub.bin

.intel_syntax noprefix
.text
.set now, base + 0x1000
.set offsets, base + 0x1040
.set table, base + 0x1100
.set spins, base + 0x2000
.set LIMIT, 1000                        # reads of one moment, after which a thread is taken to wait for the next

base:
clock_gettime:                          # int (edi: clock, rsi: struct timespec *)
    endbr64
    cmp edi, 11
    ja  kernel                          # also negative ones: CPU clocks of a thread, clocks behind a file
    mov eax, 0xBF3                      # 0 REALTIME, 1 MONOTONIC, 4 RAW, 5 6 COARSE, 7 BOOTTIME, 8 9 ALARM, 11 TAI
    bt  eax, edi
    jnc kernel                          # 2 and 3: CPU time stays the kernel's
    call read
    mov edi, edi                        # its upper half may hold anything
    lea rdx, [rip + offsets]
    add rax, [rdx + 8 * rdi]
    xor edx, edx
    mov ecx, 1000000000
    div rcx
    mov [rsi], rax
    mov [rsi + 8], rdx
    xor eax, eax
    ret
kernel:
    mov eax, 228
    syscall                             # from this page: the seccomp filter lets it pass
    ret

.balign 16
gettimeofday:                           # int (rdi: struct timeval *, rsi: struct timezone *)
    endbr64
    test rsi, rsi
    jz  1f
    mov qword ptr [rsi], 0
1:  test rdi, rdi
    jz  2f
    call read
    add rax, [rip + offsets]
    xor edx, edx
    mov ecx, 1000
    div rcx
    xor edx, edx
    mov ecx, 1000000
    div rcx
    mov [rdi], rax
    mov [rdi + 8], rdx
2:  xor eax, eax
    ret

.balign 16
time:                                   # time_t (rdi: time_t *)
    endbr64
    call read
    add rax, [rip + offsets]
    xor edx, edx
    mov ecx, 1000000000
    div rcx
    test rdi, rdi
    jz  1f
    mov [rdi], rax
1:  ret

.balign 16
read:                                   # -> rax: now.  Keeps rdi and rsi
    mov rax, [rip + now]
    lea rdx, [rip + spins]
    mov rcx, rsp                        # one counter per 64 KB of stack: every thread has its own
    shr rcx, 12
    and ecx, 0xFF0
    add rdx, rcx
    cmp [rdx], rax
    jne 1f
    inc dword ptr [rdx + 8]
    cmp dword ptr [rdx + 8], LIMIT
    jb  2f
    mov dword ptr [rdx + 8], 0
    mov eax, 24                         # sched_yield: made here, the filter hands it to sim.py, which lets time pass
    syscall
    jmp read
1:  mov [rdx], rax
    mov dword ptr [rdx + 8], 0
2:  ret

.balign 16
calls:                                  # sim.py sends a stopped thread here, and gets it back at the int3
    endbr64
    lea rbx, [rip + table]
1:  mov r11, [rbx]
    test r11, r11
    jz  2f
    mov rdi, [rbx + 8]
    mov rsi, [rbx + 16]
    mov rdx, [rbx + 24]
    mov rcx, [rbx + 32]
    mov r8, [rbx + 40]
    mov r9, [rbx + 48]
    push qword ptr [rbx + 56]           # the seventh is passed on the stack, which stays aligned to 16 bytes
    push qword ptr [rbx + 56]
    xor eax, eax
    call r11
    add rsp, 16
    mov [rbx + 56], rax
    add rbx, 64
    jmp 1b
2:  int3
