// msrs: finds out which MSRs it can write, writes them, and reads them again. Ground truth for what
// a snapshot has to hold.
//
// Entry   long mode, ring 0, a stack of 256 bytes.
// Memory  GUEST_LINES: ranges of MSRs, u64 first and u64 number of each, up to a number of 0.
//         GUEST_PAGES: 32 bytes for each MSR in the table: u64 index, value before it was written,
//         value after, value when read last. GUEST_COUNT: how many there are. GUEST_CURSOR: the MSR
//         that it is at. GUEST_ERRORS: MSRs of the table that could not be read.
// Command GUEST_COMMAND_GO: tries every MSR of the ranges. One that can be read, and reads other
//         than before once another value was written, is put into the table and left so.
//         GUEST_COMMAND_REFILL: reads the MSRs of the table. Either is set to 0 when it is done.
// Ports   GUEST_PORT_READY once.
#include "abi.h"
#include "common.inc"
#include "interrupts.inc"

#define GENERAL_PROTECTION 13

        .text
        .globl  _start
_start: cli
        set_up_interrupts
        announce

idle:   mov     GUEST_DATA + GUEST_COMMAND, %rax
        cmp     $GUEST_COMMAND_GO, %rax
        je      scan
        cmp     $GUEST_COMMAND_REFILL, %rax
        je      reread
        jmp     idle
done:   movq    $0, GUEST_DATA + GUEST_COMMAND
        jmp     idle

// rdx:rax of MSR ecx into rax; r15 is not 0 when there is none.
        .macro  read_msr
        xor     %r15d, %r15d
        rdmsr
        shl     $32, %rdx
        or      %rdx, %rax
        .endm

scan:   mov     $GUEST_PAGES, %ebx
        movq    $0, GUEST_DATA + GUEST_COUNT
        mov     $GUEST_DATA + GUEST_LINES, %esi
range:  mov     (%rsi), %r12
        mov     8(%rsi), %r13
        add     $16, %rsi
        test    %r13, %r13
        jz      done
        add     %r12, %r13
msr:    mov     %r12, GUEST_DATA + GUEST_CURSOR
        mov     %r12d, %ecx
        read_msr
        test    %r15d, %r15d
        jnz     next
        mov     %rax, %r8                       // the value before
        mov     $1, %r9d                        // the bit that is changed
change: mov     %r8, %rax
        xor     %r9, %rax
        mov     %rax, %rdx
        shr     $32, %rdx
        xor     %r15d, %r15d
        wrmsr
        test    %r15d, %r15d
        jnz     refused
        read_msr
        cmp     %r8, %rax
        jne     found
refused:
        shl     $1, %r9
        jnz     change
        jmp     next
found:  mov     %r12, (%rbx)
        mov     %r8, 8(%rbx)
        mov     %rax, 16(%rbx)
        mov     %rax, 24(%rbx)
        add     $32, %rbx
        incq    GUEST_DATA + GUEST_COUNT
next:   inc     %r12
        cmp     %r13, %r12
        jb      msr
        jmp     range

reread: mov     $GUEST_PAGES, %ebx
        mov     GUEST_DATA + GUEST_COUNT, %r13
1:      test    %r13, %r13
        jz      done
        mov     (%rbx), %ecx
        mov     %rcx, GUEST_DATA + GUEST_CURSOR
        xor     %eax, %eax
        xor     %edx, %edx
        read_msr
        add     %r15, GUEST_DATA + GUEST_ERRORS
        mov     %rax, 24(%rbx)
        add     $32, %rbx
        dec     %r13
        jmp     1b

// RDMSR and WRMSR have 2 bytes.
fault:  cmpl    $GENERAL_PROTECTION, GUEST_DATA + GUEST_EXTRA
        jne     unexpected
        mov     $1, %r15d
        add     $8, %rsp
        addq    $2, (%rsp)
        iretq

on_irq0:
on_irq4:
on_timer:
        interrupt_tables fault
