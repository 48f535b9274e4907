# The code that answers clock_gettime, gettimeofday and time inside a game under sim.py's clock hook.
# sim.py maps one shared file into the game: this code at `base` (r-x), and the clock 4096 bytes further (rw):
#     now      u64  virtual CLOCK_MONOTONIC, ns          one aligned word: a store by sim.py is atomic
#     epoch    u64  CLOCK_REALTIME - CLOCK_MONOTONIC, ns
# The first 16 bytes of each vDSO function are overwritten by a jump to its counterpart here.
# sim.py holds the bytes as STUB; tests/test_sim.py assembles this file and compares:
#     as --64 -o stub.o stub.S && objcopy -O binary -j .text stub.o stub.bin

.intel_syntax noprefix
.text
.set now, base + 0x1000
.set epoch, base + 0x1008

base:
clock_gettime:                          # int (edi: clock, rsi: struct timespec *)
    endbr64
    cmp edi, 11
    ja  kernel                          # also negative ones: CPU clocks of a thread, clocks behind a file
    mov eax, 0xBF3                      # 0 REALTIME, 1 MONOTONIC, 4 RAW, 5 6 COARSE, 7 BOOTTIME, 8 9 ALARM, 11 TAI
    bt  eax, edi
    jnc kernel                          # 2 and 3: CPU time stays the kernel's
    mov rax, [rip + now]
    mov edx, 0x921                      # 0, 5, 8, 11 count from the epoch
    bt  edx, edi
    jnc 1f
    add rax, [rip + epoch]
1:  xor edx, edx
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
    mov rax, [rip + now]
    add rax, [rip + epoch]
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
    mov rax, [rip + now]
    add rax, [rip + epoch]
    xor edx, edx
    mov ecx, 1000000000
    div rcx
    test rdi, rdi
    jz  1f
    mov [rdi], rax
1:  ret
