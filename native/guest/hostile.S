// hostile: misbehaves in one of many ways. The host must stay in control of each.
//
// Entry   long mode, ring 0 or ring 3 (4 GiB mapped one to one); a stack of 256 bytes.
//         rsi  what to do; those marked 0 need ring 0 and end in a triple fault in ring 3:
//           0  an endless loop                      1  a triple fault
//           2  cli; hlt (0)                         3  reads and writes bad MSRs for ever (0)
//           4  writes junk to every port but GUEST_PORT_EXIT, sizes 1, 2, 4, for ever
//           5  jumps to 0xd0000000, where no memory is
//           6  ud2 for ever: handled in ring 0, else a triple fault
//           7  reads every port for ever            8  reads and writes all of [3 GiB, 4 GiB)
//           9  rep outsb of 2^20 bytes for ever    10  pushes until the stack runs out of memory
//          11  fills its page tables with junk and loads CR3 (0)
//          12  int3 for ever                       13  sti; hlt, though nothing will interrupt (0)
//          14  sends itself and all others INIT and NMI IPIs for ever (0)
//         more: as 0.
// Memory  GUEST_COUNT rounds done, GUEST_VECTORS exceptions taken in ring 0.
// Ports   GUEST_PORT_READY once.
#include "abi.h"
#include "common.inc"
#include "interrupts.inc"

#define NOWHERE 0xd0000000
#define LAST_CHOICE 14

        .text
        .globl  _start
_start: mov     %rsi, %r12
        mov     %cs, %eax
        test    $3, %eax
        jnz     1f
        cli
        set_up_interrupts
1:      announce
        mov     %rsp, %r13
        mov     $0x2545f491, %ebp               // junk, by xorshift
        cmp     $LAST_CHOICE, %r12
        ja      spin
        jmp     *choices(, %r12, 8)

spin:   jmp     spin

triple_fault:
        mov     %cs, %eax
        test    $3, %eax
        jnz     1f
        lidt    no_idt
1:      ud2

dead:   cli
        hlt
        jmp     dead

bad_msrs:
        lea     2f(%rip), %r14
        incq    GUEST_DATA + GUEST_COUNT
        call    junk
        mov     %ebp, %ecx
        rdmsr
2:      lea     bad_msrs(%rip), %r14
        call    junk
        mov     %ebp, %eax
        mov     %ebp, %edx
        mov     GUEST_DATA + GUEST_COUNT, %ecx
        and     $0xfff, %ecx
        or      $0xc0011000, %ecx
        wrmsr
        jmp     bad_msrs

write_ports:
        xor     %edx, %edx
3:      call    junk
        mov     %ebp, %eax
        cmp     $GUEST_PORT_EXIT, %edx
        je      4f
        outb    %al, %dx
        cmp     $GUEST_PORT_EXIT - 3, %edx
        jb      5f
        cmp     $GUEST_PORT_EXIT, %edx
        jb      4f
5:      outw    %ax, %dx
        outl    %eax, %dx
4:      inc     %edx
        cmp     $0xfffd, %edx
        jb      3b
        incq    GUEST_DATA + GUEST_COUNT
        jmp     write_ports

read_ports:
        xor     %edx, %edx
6:      inb     %dx, %al
        inw     %dx, %ax
        inl     %dx, %eax
        inc     %edx
        cmp     $0xfffd, %edx
        jb      6b
        incq    GUEST_DATA + GUEST_COUNT
        jmp     read_ports

jump_nowhere:
        mov     $NOWHERE, %eax
        jmp     *%rax

undefined:
        lea     undefined(%rip), %r14
        incq    GUEST_DATA + GUEST_COUNT
        ud2

mmio:   mov     $GUEST_LOW_END, %ebx
7:      mov     (%rbx), %eax
        call    junk
        mov     %ebp, (%rbx)
        movb    %bpl, 3(%rbx)
        mov     %rbp, 8(%rbx)
        add     $4096, %ebx
        jnc     7b
        incq    GUEST_DATA + GUEST_COUNT
        jmp     mmio

strings:
        mov     $GUEST_TEXT, %esi
        mov     $1 << 20, %ecx
        mov     $GUEST_PORT_READY, %edx
        rep outsb
        incq    GUEST_DATA + GUEST_COUNT
        jmp     strings

overflow:
        push    %rbp
        jmp     overflow

no_tables:
        mov     %cr3, %rdi
        mov     $512, %ecx
8:      call    junk
        mov     %rbp, (%rdi)
        add     $8, %rdi
        dec     %ecx
        jnz     8b
        mov     %cr3, %rax
        mov     %rax, %cr3
        jmp     spin

breakpoints:
        lea     breakpoints(%rip), %r14
        incq    GUEST_DATA + GUEST_COUNT
        int3
        jmp     breakpoints

idle:   sti
        hlt
        incq    GUEST_DATA + GUEST_COUNT
        jmp     idle

ipis:   mov     $LAPIC, %ebx
        movl    $0x1ff, 0xf0(%rbx)
        lea     9f(%rip), %r14
        movl    $0xc4500, 0x300(%rbx)           // INIT to all but self
        movl    $0x84400, 0x300(%rbx)           // NMI to all
9:      incq    GUEST_DATA + GUEST_COUNT
        jmp     ipis

junk:   mov     %ebp, %eax
        shl     $13, %eax
        xor     %eax, %ebp
        mov     %ebp, %eax
        shr     $17, %eax
        xor     %eax, %ebp
        mov     %ebp, %eax
        shl     $5, %eax
        xor     %eax, %ebp
        ret

// Any exception in ring 0: goes on at r14 with the stack as it was at the start.
resume: mov     %r13, %rsp
        jmp     *%r14

on_irq0:
on_irq4:
on_timer:
        interrupt_tables otherwise=resume

        .section .rodata
        .balign 8
choices:
        .quad   spin, triple_fault, dead, bad_msrs, write_ports, jump_nowhere, undefined
        .quad   read_ports, mmio, strings, overflow, no_tables, breakpoints, idle, ipis
no_idt: .word   0
        .quad   0
