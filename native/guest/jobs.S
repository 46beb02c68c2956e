// jobs: does what the host describes and nothing else, so that memory, registers and devices follow
// from the jobs that were done: ground truth for machines that are forked, reset and restored.
//
// Entry   each vCPU in long mode, ring 3 (SSE is used); stack not used.
//         rsi  the number of the vCPU, below 64.
// Memory  GUEST_LINES + 64 * rsi: the vCPU's line. The host fills in GUEST_ROUND_* and stores a command
//         at GUEST_ROUND_COMMAND last, which the guest sets to 0 at the end of the job; then
//         GUEST_ROUND_DONE counts up. A job is GUEST_ROUND_COUNT times
//           rbx = rbx * 6364136223846793005 + word + GUEST_ROUND_SEED; word = rbx
//         with words from GUEST_ROUND_BASE on, GUEST_ROUND_RANGE bytes apart; and then
//           xmm0 = rbx, xmm1 += xmm0 (low halves),
//           rbx bits 7:0 to the serial port's scratch register,
//           rbx bits 15:8 to CMOS RAM at 0x40 + rbx bits 3:0.
//         GUEST_EXTRA, GUEST_SCRATCH: the code that it waits in, first address and end. There r8 is the
//         address after the last word, r9 to r11 are what the job was, r10 down to 0; rax is rbx bits 31:8,
//         rcx the command, rdx GUEST_PORT_PASS.
// Ports   GUEST_PORT_READY once from each vCPU; GUEST_PORT_PASS at the end of a job whose command is not
//         GUEST_COMMAND_GO.
#include "abi.h"
#include "common.inc"

#define CMOS_INDEX 0x70
#define CMOS_DATA 0x71

        .text
        .globl  _start
_start: mov     %rsi, %rbx
        and     $63, %ebx
        shl     $6, %ebx
        lea     GUEST_DATA + GUEST_LINES(%rbx), %rbp
        lea     settled(%rip), %rax
        mov     %rax, GUEST_DATA + GUEST_EXTRA
        lea     busy(%rip), %rax
        mov     %rax, GUEST_DATA + GUEST_SCRATCH
        announce
        movabs  $6364136223846793005, %r12
        xor     %ebx, %ebx
        pxor    %xmm1, %xmm1
        jmp     waits

job:    mov     GUEST_ROUND_BASE(%rbp), %r8
        mov     GUEST_ROUND_RANGE(%rbp), %r9
        mov     GUEST_ROUND_COUNT(%rbp), %r10
        mov     GUEST_ROUND_SEED(%rbp), %r11
        jmp     2f
1:      imul    %r12, %rbx
        add     (%r8), %rbx
        add     %r11, %rbx
        mov     %rbx, (%r8)
        add     %r9, %r8
        dec     %r10
2:      test    %r10, %r10
        jnz     1b

        movq    %rbx, %xmm0
        paddq   %xmm0, %xmm1
        mov     %ebx, %eax
        mov     $GUEST_PORT_SERIAL + 7, %edx
        outb    %al, %dx
        and     $15, %eax
        add     $0x40, %eax
        mov     $CMOS_INDEX, %edx
        outb    %al, %dx
        mov     %ebx, %eax
        shr     $8, %eax
        mov     $CMOS_DATA, %edx
        outb    %al, %dx

        mov     GUEST_ROUND_COMMAND(%rbp), %rcx
        movq    $0, GUEST_ROUND_COMMAND(%rbp)
        mov     $GUEST_PORT_PASS, %edx
        incq    GUEST_ROUND_DONE(%rbp)
settled:
        cmp     $GUEST_COMMAND_GO, %rcx
        je      waits
        outb    %al, %dx
waits:  cmpq    $0, GUEST_ROUND_COMMAND(%rbp)
        je      waits
busy:   jmp     job
