// writer: rewrites pages as fast as it can, so that a torn page, or one that came from another
// machine, can be told from a good one.
//
// Entry   each vCPU in long mode, ring 3 or ring 0; stack not used.
//         rsi  the number of the vCPU, below 3.
//         r15  pages, at least 1: vCPU 0's from GUEST_PAGES up, the next one's after them.
// Memory  A page of generation g (1 at first) has
//           word 0          2g when whole, 2g - 1 while it is being written (a sequence lock)
//           words 1 to 509  (v + i) * 0x9e3779b97f4a7c15, where i is the word's number and
//                           v = g * 0x100000001b3 + salt + page index
//           word 510        the salt
//           word 511        the sum of words 1 to 510, mod 2^64
//         GUEST_CURSOR  c, how many pages were written since the start. In any consistent picture
//                       of memory page i is whole and of generation c / r15 + (i < c % r15), but
//                       for page c % r15, which may be half way to the next, or there.
//         GUEST_SALT    written by the host; taken at the start of a pass: a clone that is given
//                       another salt writes other data.
//         GUEST_COUNT   passes done.   GUEST_ERRORS  pages found wrong before being rewritten.
//         Each vCPU has these words, and GUEST_COMMAND, at GUEST_DATA + 0x1000 * rsi.
//         GUEST_EXTRA   vCPU 0's only: the sum of all cursors, kept with locked increments, which is less
//                       than the sum of them by one for each vCPU at most.
// Ports   GUEST_PORT_READY once, GUEST_PORT_EXIT with GUEST_EXIT_MISMATCH at the first wrong page.
//         GUEST_COMMAND_EXIT at GUEST_COMMAND ends it after a pass.
#include "abi.h"
#include "common.inc"

        .text
        .globl  _start
_start: movabs  $0x9e3779b97f4a7c15, %r10
        movabs  $0x100000001b3, %r11
        announce
        mov     %rsi, %rbp
        imul    %r15, %rsi
        shl     $12, %rsi
        add     $GUEST_PAGES, %rsi              // the first page
        shl     $12, %ebp
        add     $GUEST_DATA, %ebp               // the vCPU's words

        xor     %r12d, %r12d                    // generation of the running pass
        xor     %r9d, %r9d                      // its salt

pass:   mov     %r9, %r8                        // salt of the pass before
        mov     GUEST_SALT(%rbp), %r9
        inc     %r12
        xor     %r14d, %r14d                    // page index
        mov     %rsi, %rdi

page:   cmp     $1, %r12
        je      write

// What lies here must be whole, and of the generation before.
        lea     -1(%r12), %r13
        lea     (%r13, %r13), %rax
        cmp     %rax, (%rdi)
        jne     wrong
        imul    %r11, %r13
        add     %r8, %r13
        lea     1(%r13, %r14), %r13
        imul    %r10, %r13
        xor     %ebx, %ebx
        mov     $1, %ecx
1:      cmp     %r13, (%rdi, %rcx, 8)
        jne     wrong
        add     %r13, %rbx
        add     %r10, %r13
        inc     %ecx
        cmp     $510, %ecx
        jne     1b
        cmp     %r8, 510 * 8(%rdi)
        jne     wrong
        add     %r8, %rbx
        cmp     %rbx, 511 * 8(%rdi)
        jne     wrong

write:  lea     -1(%r12, %r12), %rax
        mov     %rax, (%rdi)
        mov     %r12, %r13
        imul    %r11, %r13
        add     %r9, %r13
        lea     1(%r13, %r14), %r13
        imul    %r10, %r13
        xor     %ebx, %ebx
        mov     $1, %ecx
2:      mov     %r13, (%rdi, %rcx, 8)
        add     %r13, %rbx
        add     %r10, %r13
        inc     %ecx
        cmp     $510, %ecx
        jne     2b
        mov     %r9, 510 * 8(%rdi)
        add     %r9, %rbx
        mov     %rbx, 511 * 8(%rdi)
        incq    (%rdi)
        incq    GUEST_CURSOR(%rbp)
        lock incq GUEST_DATA + GUEST_EXTRA

        add     $4096, %rdi
        inc     %r14
        cmp     %r15, %r14
        jb      page
        incq    GUEST_COUNT(%rbp)
        cmpb    $GUEST_COMMAND_EXIT, GUEST_COMMAND(%rbp)
        jne     pass
        finish  GUEST_EXIT_OK

wrong:  incq    GUEST_ERRORS(%rbp)
        finish  GUEST_EXIT_MISMATCH
