// touch: writes one word into each of some pages, over and over. For benchmarks.
//
// Entry   long mode, ring 3 or ring 0; stack not used.
//         r15  pages to write in one pass, from GUEST_PAGES up, at least 1.
// Memory  the first u64 of each page: how many pages of the pass were left, 1 in the last.
// Ports   GUEST_PORT_READY once, then GUEST_PORT_PASS after each pass.
//
// It touches no other memory, not even a data page: scripts/bench measures with the same code.
#include "abi.h"

        .text
        .globl  _start
_start: mov     $GUEST_PORT_READY, %dx
        outb    %al, %dx
pass:   mov     $GUEST_PAGES, %rdi
        mov     %r15, %rcx
next:   mov     %rcx, (%rdi)
        add     $4096, %rdi
        dec     %rcx
        jnz     next
        mov     $GUEST_PORT_PASS, %dx
        outb    %al, %dx
        jmp     pass
