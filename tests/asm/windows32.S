# windows64.S for 32-bit games; a moment is in edx:eax.  It runs at any address, with its data in the page before it.

.intel_syntax noprefix
.text
.set data, -0x1000                      # all from ebx, the address of base
.set live, data
.set counter, data + 0x08
.set delay, data + 0x10
.set filetime, data + 0x18
.set qpc, data + 0x20
.set ticks, data + 0x28
.set mmticks, data + 0x30
.set scale, data + 0x38
.set banks, data + 0x400
.set SLICE, -5000

base:
now:                                    # ebx -> edx:eax
    push edi
    sub esp, 8
    mov eax, esp
    push 0
    push eax
    call [ebx + counter]
    movzx edi, byte ptr [ebx + live]
    shl edi, 5
    lea edi, [edi + ebx + banks]
    pop eax
    pop edx
    sub eax, [edi]
    sbb edx, [edi + 4]
    jns 1f
    xor eax, eax
    xor edx, edx
1:  lea ecx, [edi + 8]
    call scaled
    add eax, [edi + 16]
    adc edx, [edi + 20]
    cmp [edi + 24], eax
    mov ecx, [edi + 28]
    sbb ecx, edx
    jge 2f
    mov eax, [edi + 24]
    mov edx, [edi + 28]
2:  pop edi
    ret

scaled:                                 # edx:eax * (u64 at ecx) >> 32
    push esi
    push edi
    push ebp
    mov esi, eax
    mov edi, edx
    mul dword ptr [ecx]
    mov ebp, edx
    mov eax, edi
    mul dword ptr [ecx + 4]
    push eax
    mov eax, esi
    mul dword ptr [ecx + 4]
    add ebp, eax
    adc [esp], edx
    mov eax, edi
    mul dword ptr [ecx]
    add eax, ebp
    adc edx, [esp]
    pop ecx
    pop ebp
    pop edi
    pop esi
    ret

here:                                   # -> ebx: base
    mov ebx, [esp]
    and ebx, -0x1000
    ret

.balign 16
QueryPerformanceCounter:
    push ebx
    call here
    call now
    lea ecx, [ebx + scale]
    call scaled
    add eax, [ebx + qpc]
    adc edx, [ebx + qpc + 4]
    mov ecx, [esp + 8]
    mov [ecx], eax
    mov [ecx + 4], edx
    mov eax, 1
    pop ebx
    ret 4

.balign 16
GetTickCount:
    push ebx
    call here
    call milliseconds
    add eax, [ebx + ticks]
    adc edx, [ebx + ticks + 4]
    pop ebx
    ret

.balign 16
timeGetTime:
    push ebx
    call here
    call milliseconds
    add eax, [ebx + mmticks]
    pop ebx
    ret

milliseconds:
    call now
    push esi
    mov esi, 10000
    mov ecx, eax
    mov eax, edx
    xor edx, edx
    div esi
    xchg eax, ecx
    div esi
    mov edx, ecx
    pop esi
    ret

.balign 16
GetSystemTimeAsFileTime:
    push ebx
    call here
    call now
    add eax, [ebx + filetime]
    adc edx, [ebx + filetime + 4]
    mov ecx, [esp + 8]
    mov [ecx], eax
    mov [ecx + 4], edx
    pop ebx
    ret 4

.balign 16
Sleep:
    push 0
    push [esp + 8]
    call SleepEx
    ret 4

.balign 16
SleepEx:
    push ebx
    push esi
    push edi
    sub esp, 8
    call here
    or esi, -1                          # edi:esi: until when
    mov edi, 0x7fffffff
    mov eax, [esp + 24]
    cmp eax, -1
    je 1f
    mov ecx, 10000
    mul ecx
    mov esi, eax
    mov edi, edx
    call now
    xchg esi, eax
    xchg edi, edx
    mov ecx, eax
    or ecx, edx
    jz 2f                               # Sleep(0): ecx is 0
    add esi, eax
    adc edi, edx
1:  mov ecx, SLICE
2:  mov eax, ecx
    cdq
    mov [esp], eax
    mov [esp + 4], edx
    mov eax, esp
    push eax
    push [esp + 32]                     # alertable
    call [ebx + delay]
    cmp dword ptr [esp + 28], 0
    jz 3f
    cmp eax, 0xC0
    je 4f
3:  call now
    cmp eax, esi
    sbb edx, edi
    jl 1b
    xor eax, eax
4:  add esp, 8
    pop edi
    pop esi
    pop ebx
    ret 8
