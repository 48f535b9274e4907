# The code that sim.py puts into a 64-bit Windows game: it replaces whole functions that read the time or sleep.
# sim.py allocates two pages: data (rw), and behind it this code (r-x).  A moment is a count of 100 ns since the clock took over.
#     live      u8   number of the bank that counts: the store of one byte by sim.py changes all of it
#     counter   u64  ntdll!NtQueryPerformanceCounter: the real time; delay: ntdll!NtDelayExecution
#     filetime, qpc, ticks, mmticks   u64  what each clock showed at moment 0; scale u64: performance counts per moment, 32.32
#     banks     {u64 real, u64 speed 32.32, i64 moment, i64 limit} [96]:  now = min(limit, moment + ((counter() - real) * speed >> 32))
# clock/windows_stub.py holds the bytes as WINDOWS_STUB; tests/test_windows.py assembles this file and compares.

.intel_syntax noprefix
.text
.set data, base - 0x1000
.set live, data
.set counter, data + 0x08
.set delay, data + 0x10
.set filetime, data + 0x18
.set qpc, data + 0x20
.set ticks, data + 0x28
.set mmticks, data + 0x30
.set scale, data + 0x38
.set banks, data + 0x400
.set SLICE, -5000                       # 0.5 ms: how often a sleeper looks at the clock

base:
now:                                    # -> rax; the stack is at 8 modulo 16, as after any call
    sub rsp, 0x38
    lea rcx, [rsp + 0x28]
    xor edx, edx
    call [rip + counter]
    movzx r8d, byte ptr [rip + live]
    shl r8d, 5
    lea r9, [rip + banks]
    add r9, r8
    xor edx, edx
    mov rax, [rsp + 0x28]
    sub rax, [r9]
    cmovs rax, rdx                      # the bank is younger than our reading
    mul qword ptr [r9 + 8]
    shrd rax, rdx, 32
    add rax, [r9 + 16]
    cmp rax, [r9 + 24]
    cmovg rax, [r9 + 24]
    add rsp, 0x38
    ret

.balign 16
QueryPerformanceCounter:                # BOOL (rcx: int64 *)
    push rbx
    sub rsp, 0x20
    mov rbx, rcx
    call now
    mul qword ptr [rip + scale]
    shrd rax, rdx, 32
    add rax, [rip + qpc]
    mov [rbx], rax
    mov eax, 1
    add rsp, 0x20
    pop rbx
    ret

.balign 16
GetTickCount:                           # ms, 32 or 64 bits
    sub rsp, 0x28
    call milliseconds
    add rax, [rip + ticks]
    add rsp, 0x28
    ret

.balign 16
timeGetTime:
    sub rsp, 0x28
    call milliseconds
    add rax, [rip + mmticks]
    add rsp, 0x28
    ret

milliseconds:
    sub rsp, 0x28
    call now
    xor edx, edx
    mov ecx, 10000
    div rcx
    add rsp, 0x28
    ret

.balign 16
GetSystemTimeAsFileTime:                # void (rcx: uint64 *)
    push rbx
    sub rsp, 0x20
    mov rbx, rcx
    call now
    add rax, [rip + filetime]
    mov [rbx], rax
    add rsp, 0x20
    pop rbx
    ret

.balign 16
Sleep:                                  # void (ecx: ms)
    xor edx, edx
SleepEx:                                # 0, or 0xC0 after an APC (ecx: ms, edx: alertable)
    push rbx
    push rsi
    push rdi
    sub rsp, 0x30
    mov edi, edx
    mov rbx, 0x7fffffffffffffff         # until when
    cmp ecx, -1                         # INFINITE
    je 1f
    mov esi, ecx
    imul rsi, rsi, 10000
    call now
    lea rbx, [rax + rsi]
    xor eax, eax                        # Sleep(0): yield once
    test rsi, rsi
    jz 2f
1:  mov rax, SLICE
2:  mov [rsp + 0x28], rax
    mov ecx, edi
    lea rdx, [rsp + 0x28]
    call [rip + delay]
    test edi, edi
    jz 3f
    cmp eax, 0xC0
    je 4f
3:  call now
    cmp rax, rbx
    jl 1b
    xor eax, eax
4:  add rsp, 0x30
    pop rdi
    pop rsi
    pop rbx
    ret
