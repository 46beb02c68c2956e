// escape: ways out of what a guest in ring 3 may do. For resets, which must find out.
//
// Entry   long mode, ring 3, the tables of a bare guest (lib/boot/layout.ts); interrupts off.
// Ports   GUEST_PORT_COMMAND. 0: stays where it is. 1: makes an interrupt gate, enters ring 0 by it,
//         for good, and writes to KERNEL_GS_BASE and DR0. 2: maps GUEST_ESCAPE_VIEW to the memory 2 MiB above
//         it. Then GUEST_PORT_PASS.
// Regs    rbx: the word that it read at GUEST_ESCAPE_VIEW before that.
#include "abi.h"

#define IDT 0x81000
#define PAGE_DIRECTORY 0x88000
// int3: the one whose gate ring 3 gets to on PVM.
#define VECTOR 3
#define KERNEL_CODE 0x08
// Present, DPL 3, 64-bit interrupt gate (Intel SDM volume 3, 6.14.1).
#define GATE 0xee00
// Present, writable, ring 3, accessed, dirty, large.
#define LARGE_PAGE 0xe7
#define KERNEL_GS_BASE 0xc0000102

        .text
        .globl  _start
_start: mov     $GUEST_PORT_COMMAND, %dx
        inb     %dx, %al
        cmp     $1, %al
        je      enter
        cmp     $2, %al
        je      remap
look:   mov     GUEST_ESCAPE_VIEW, %rbx
        mov     $GUEST_PORT_PASS, %dx
        outb    %al, %dx
        jmp     _start

remap:  movq    $(GUEST_ESCAPE_VIEW + 0x200000 + LARGE_PAGE), \
                PAGE_DIRECTORY + GUEST_ESCAPE_VIEW / 0x200000 * 8
        jmp     look

enter:  lea     kernel(%rip), %rax
        mov     $IDT + VECTOR * 16, %rdi
        movw    %ax, (%rdi)
        movw    $KERNEL_CODE, 2(%rdi)
        movw    $GATE, 4(%rdi)
        shr     $16, %rax
        movw    %ax, 6(%rdi)
        int3

kernel: mov     $KERNEL_GS_BASE, %ecx
        mov     $0x12345000, %eax
        xor     %edx, %edx
        wrmsr
        mov     %rax, %dr0
        jmp     look
