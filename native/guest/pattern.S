// pattern: fills all memory from GUEST_PAGES up with pseudo-random words, and verifies them on
// command.
//
// Entry   long mode, ring 3 (native speed on every host) or ring 0; stack not used.
//         rdi  bytes of RAM in all: the first 3 GiB lie at 0, the rest at GUEST_HIGH_START.
// Memory  word w of the page at gpa p is the w-th value of the generator
//             x = x * 6364136223846793005 + 1442695040888963407,
//         where x starts as (p ^ GUEST_SEED) * 0x9e3779b97f4a7c15: no two pages are alike.
//         GUEST_SEED     1 at first.
//         GUEST_COUNT    passes done (fill or verify).
//         GUEST_ERRORS   words found wrong, over all verify passes.
//         GUEST_CHECKSUM sum of all words the last pass wrote or read, mod 2^64.
//         GUEST_EXTRA    gpa of the first wrong word.
// Ports   GUEST_PORT_READY when the first fill is done, GUEST_PORT_PASS after each later pass.
//         GUEST_PORT_COMMAND is read when idle; a command in memory at GUEST_COMMAND counts too.
//         Commands: GUEST_COMMAND_GO, GUEST_COMMAND_REFILL (GUEST_SEED + 1), GUEST_COMMAND_EXIT
//         (exit code GUEST_EXIT_OK, or GUEST_EXIT_MISMATCH if GUEST_ERRORS is not 0).
#include "abi.h"
#include "common.inc"

        .text
        .globl  _start
_start: mov     %rdi, %r14                      // bytes at 0
        xor     %r15d, %r15d                    // bytes at GUEST_HIGH_START
        mov     $GUEST_LOW_END, %eax
        cmp     %rax, %r14
        jbe     1f
        mov     %r14, %r15
        sub     %rax, %r15
        mov     %rax, %r14
1:      movabs  $6364136223846793005, %r8
        movabs  $1442695040888963407, %r9
        movabs  $0x9e3779b97f4a7c15, %r10
        movq    $1, GUEST_DATA + GUEST_SEED
        lea     fill(%rip), %rbp

// One pass over both ranges; rbp is what is done with a page: fill or verify.
pass:   xor     %r13d, %r13d                    // checksum
        mov     $GUEST_PAGES, %edi
        mov     %r14, %rsi
        lea     2f(%rip), %rbx
        jmp     range
2:      mov     $GUEST_HIGH_START, %rdi
        lea     (%rdi, %r15), %rsi
        lea     3f(%rip), %rbx
        jmp     range
3:      mov     %r13, GUEST_DATA + GUEST_CHECKSUM
        incq    GUEST_DATA + GUEST_COUNT
        cmpq    $0, GUEST_DATA + GUEST_MAGIC
        jne     4f
        announce
        jmp     idle
4:      mov     $GUEST_PORT_PASS, %edx
        outb    %al, %dx

idle:   mov     $GUEST_PORT_COMMAND, %edx
        inb     %dx, %al
        cmp     $0xff, %al
        je      5f
        test    %al, %al
        jnz     command
5:      mov     GUEST_DATA + GUEST_COMMAND, %rax
        movq    $0, GUEST_DATA + GUEST_COMMAND
command:
        cmp     $GUEST_COMMAND_GO, %al
        lea     verify(%rip), %rbp
        je      pass
        cmp     $GUEST_COMMAND_EXIT, %al
        je      leave
        cmp     $GUEST_COMMAND_REFILL, %al
        jne     idle
        incq    GUEST_DATA + GUEST_SEED
        lea     fill(%rip), %rbp
        jmp     pass

leave:  cmpq    $0, GUEST_DATA + GUEST_ERRORS
        jne     6f
        finish  GUEST_EXIT_OK
6:      finish  GUEST_EXIT_MISMATCH

// The pages of [rdi, rsi), then to rbx.
range:  cmp     %rsi, %rdi
        jae     7f
        mov     %rdi, %rax
        xor     GUEST_DATA + GUEST_SEED, %rax
        imul    %r10, %rax
        mov     $512, %ecx
        jmp     *%rbp
7:      jmp     *%rbx

fill:   imul    %r8, %rax
        add     %r9, %rax
        mov     %rax, (%rdi)
        add     %rax, %r13
        add     $8, %rdi
        dec     %ecx
        jnz     fill
        jmp     range

verify: imul    %r8, %rax
        add     %r9, %rax
        mov     (%rdi), %rdx
        add     %rdx, %r13
        cmp     %rax, %rdx
        jne     wrong
8:      add     $8, %rdi
        dec     %ecx
        jnz     verify
        jmp     range

wrong:  cmpq    $0, GUEST_DATA + GUEST_ERRORS
        jne     9f
        mov     %rdi, GUEST_DATA + GUEST_EXTRA
9:      incq    GUEST_DATA + GUEST_ERRORS
        jmp     8b

