// counter: counts, in memory and on the serial port. The guest of the demo.
//
// Entry   long mode, ring 3 or ring 0; stack not used.
//         rsi  spin iterations between numbers; 0: 16 Mi in ring 3 (some 10 ms), 512 in ring 0,
//              which on hosts that emulate it takes 0.5 us an instruction.
// Memory  GUEST_COUNT   the last number whose line was sent whole.
//         GUEST_LINE    the line being sent, GUEST_LENGTH characters, of which GUEST_SENT are sent.
// Ports   GUEST_PORT_SERIAL, polled: decimal numbers from 1, each with a newline.
//         GUEST_PORT_READY once.
//
// A machine stopped between two numbers and restored goes on with GUEST_COUNT + 1 as a whole line.
// Stopped inside a line, it goes on with the rest of that line: what the first machine sent and what
// the restored one sends always join to an unbroken sequence.
#include "abi.h"
#include "common.inc"

        .text
        .globl  _start
_start: test    %rsi, %rsi
        jnz     1f
        mov     $16 << 20, %esi
        mov     %cs, %eax
        test    $3, %eax
        jnz     1f
        mov     $512, %esi
1:      mov     %rsi, %r12
        announce
        xor     %ebx, %ebx                      // the count

next:   inc     %rbx

// Decimal digits go to the end of GUEST_LINE, then move to its start.
        lea     GUEST_DATA + GUEST_LINE + 32, %rdi
        movb    $'\n', (%rdi)
        mov     %rbx, %rax
        mov     $10, %ecx
digit:  xor     %edx, %edx
        div     %rcx
        add     $'0', %edx
        dec     %rdi
        mov     %dl, (%rdi)
        test    %rax, %rax
        jnz     digit
        lea     GUEST_DATA + GUEST_LINE + 33, %rcx
        sub     %rdi, %rcx
        movq    $0, GUEST_DATA + GUEST_SENT
        mov     %rcx, GUEST_DATA + GUEST_LENGTH
        mov     %rdi, %rsi
        lea     GUEST_DATA + GUEST_LINE, %rdi
        rep movsb

        lea     GUEST_DATA + GUEST_LINE, %rsi
        mov     GUEST_DATA + GUEST_LENGTH, %rcx
send:   mov     $GUEST_PORT_SERIAL + 5, %edx    // line status
full:   inb     %dx, %al
        test    $0x20, %al                      // transmitter holding register empty
        jz      full
        mov     $GUEST_PORT_SERIAL, %edx
        lodsb
        outb    %al, %dx
        incq    GUEST_DATA + GUEST_SENT
        dec     %rcx
        jnz     send
        mov     %rbx, GUEST_DATA + GUEST_COUNT

        mov     %r12, %rcx
spin:   dec     %rcx
        jnz     spin
        jmp     next

