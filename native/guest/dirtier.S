// dirtier: writes pages in rounds that the host describes, and keeps a journal of them: ground truth
// for dirty tracking.
//
// Entry   each vCPU in long mode, ring 3 or ring 0; stack not used.
//         rsi  the number of the vCPU, below 64.
// Memory  GUEST_LINES + 64 * rsi: the vCPU's line. The host fills in GUEST_ROUND_* and stores
//         GUEST_COMMAND_GO at GUEST_ROUND_COMMAND last, which the guest sets to 0. Then it writes
//         GUEST_ROUND_COUNT pages of those GUEST_ROUND_RANGE from GUEST_ROUND_BASE up: in order and
//         over again if the seed is 0, those that the host put into the journal if it is -1, else at
//         random (xorshift64, modulo the range). Written is: the
//         first u64 of the page counts up; then the page's number in the range goes to the journal,
//         unless that is 0; then GUEST_ROUND_WRITTEN counts up, from 0 in each round.
//         GUEST_ROUND_DONE counts rounds, and GUEST_SCRATCH + 8 * rsi has the ticks of the TSC that the
//         last one took. Any other command ends a round that is under way, and is
//         set to 0 when the guest waits for the next. A command is taken in one step, before its
//         parameters are read, so that none is lost that the host stores meanwhile.
// Ports   GUEST_PORT_READY once from each vCPU.
#include "abi.h"
#include "common.inc"

        .text
        .globl  _start
_start: mov     %rsi, %rbx
        and     $63, %ebx
        lea     GUEST_DATA + GUEST_SCRATCH(, %rbx, 8), %r15
        shl     $6, %ebx
        lea     GUEST_DATA + GUEST_LINES(%rbx), %rbp
        announce

wait:   pause
        xor     %eax, %eax
        cmp     %rax, GUEST_ROUND_COMMAND(%rbp) // the page is written only when there is a command
        je      wait
        xchg    %rax, GUEST_ROUND_COMMAND(%rbp)
        cmp     $GUEST_COMMAND_GO, %rax
        jne     wait

        movq    $0, GUEST_ROUND_WRITTEN(%rbp)
        mov     GUEST_ROUND_BASE(%rbp), %r8
        mov     GUEST_ROUND_RANGE(%rbp), %r9
        mov     GUEST_ROUND_COUNT(%rbp), %r10
        mov     GUEST_ROUND_SEED(%rbp), %r11
        mov     GUEST_ROUND_JOURNAL(%rbp), %r12
        xor     %r13d, %r13d                    // pages written
        rdtsc
        shl     $32, %rdx
        lea     (%rdx, %rax), %r14              // when it began

next:   cmp     %r10, %r13
        jae     done
        cmpq    $0, GUEST_ROUND_COMMAND(%rbp)
        jne     done
        mov     %r13, %rax
        test    %r11, %r11
        jz      1f
        cmp     $-1, %r11
        je      3f
        mov     %r11, %rax
        shl     $13, %rax
        xor     %rax, %r11
        mov     %r11, %rax
        shr     $7, %rax
        xor     %rax, %r11
        mov     %r11, %rax
        shl     $17, %rax
        xor     %rax, %r11
        mov     %r11, %rax
1:      xor     %edx, %edx
        div     %r9
        mov     %rdx, %rax
        shl     $12, %rax
        incq    (%r8, %rax)
        test    %r12, %r12
        jz      2f
        mov     %rdx, (%r12, %r13, 8)
2:      inc     %r13
        mov     %r13, GUEST_ROUND_WRITTEN(%rbp)
        jmp     next

3:      mov     (%r12, %r13, 8), %rax
        jmp     1b

done:   rdtsc
        shl     $32, %rdx
        add     %rdx, %rax
        sub     %r14, %rax
        mov     %rax, (%r15)
        incq    GUEST_ROUND_DONE(%rbp)
        jmp     wait
