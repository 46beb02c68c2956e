// smp: starts every other vCPU by INIT and start-up IPIs; each counts in its own cache line.
//
// Entry   vCPU 0 in long mode, ring 0, 4 GiB mapped one to one; stack not used. In-kernel irqchip.
//         The others wait for a start-up IPI (KVM_MP_STATE_UNINITIALIZED). At most 64, whose
//         xAPIC ids are their numbers. CR3 is below 4 GiB.
// Loads   also to 0x9f000, the 16-bit code that the start-up IPI names.
// Memory  GUEST_LINES + 64 * APIC id: that vCPU's count. GUEST_COUNT: that of vCPU 0.
//         GUEST_EXTRA: vCPUs that arrived, without vCPU 0.
// Ports   GUEST_PORT_READY once, from vCPU 0, after the IPIs were sent.
//
// The others take the same road as in a kernel: real mode, then long mode with vCPU 0's page tables.
#include "abi.h"
#include "common.inc"

#define LAPIC 0xfee00000
#define TRAMPOLINE 0x9f000

        .text
        .globl  _start
_start: mov     %cr3, %rax
        mov     %eax, boot_cr3
        mov     %cr4, %rax
        mov     %eax, boot_cr4
        mov     $LAPIC, %r13d
        movl    $0x1ff, 0xf0(%r13)              // APIC on

        movl    $0xc4500, 0x300(%r13)           // INIT, assert, to all but self
        mov     $2000, %ecx
1:      pause
        dec     %ecx
        jnz     1b
        movl    $0xc4600 | TRAMPOLINE >> 12, 0x300(%r13)
        mov     $2000, %ecx
2:      pause
        dec     %ecx
        jnz     2b
        movl    $0xc4600 | TRAMPOLINE >> 12, 0x300(%r13)
        announce
3:      incq    GUEST_DATA + GUEST_COUNT
        incq    GUEST_DATA + GUEST_LINES
        jmp     3b

        .code64
arrived:
        mov     $0x10, %eax
        mov     %eax, %ss
        mov     %eax, %ds
        mov     %eax, %es
        lock incq GUEST_DATA + GUEST_EXTRA
        mov     $LAPIC, %ebx
        mov     0x20(%rbx), %ebx                // APIC id in bits 24 to 31
        shr     $24, %ebx
        and     $63, %ebx
        shl     $6, %ebx
4:      incq    GUEST_DATA + GUEST_LINES(%rbx)
        jmp     4b

// Real mode at TRAMPOLINE >> 4 : 0. A second start-up IPI finds the vCPU running and is lost.
        .section .trampoline, "ax"             // written too: a guest page, whatever ELF says
        .code16
        cli
        movw    %cs, %ax
        movw    %ax, %ds
        lgdtl   gdt_pointer - TRAMPOLINE
        movl    boot_cr4 - TRAMPOLINE, %eax
        orl     $0x20, %eax                     // PAE
        movl    %eax, %cr4
        movl    boot_cr3 - TRAMPOLINE, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx               // EFER
        rdmsr
        orl     $0x100, %eax                    // LME
        wrmsr
        movl    %cr0, %eax
        andl    $0x9fffffff, %eax               // caches on
        orl     $0x80000001, %eax               // PG and PE
        movl    %eax, %cr0
        ljmpl   $0x08, $arrived

        .balign 8
gdt:    .quad   0
        .quad   0x00af9b000000ffff              // 0x08: 64-bit code
        .quad   0x00cf93000000ffff              // 0x10: data
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt
boot_cr3:
        .long   0
boot_cr4:
        .long   0
