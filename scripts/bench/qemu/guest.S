// The guest that QEMU runs beside kvmsnap's: a flat firmware image of 64 KiB, entered at the reset
// vector. It writes a word into each of BENCH_PAGES pages, says so, and then answers each byte from its
// serial port with the same byte, after writing ten pages. No interrupts, no stack.
//
// Built with -DBENCH_PAGES=n, for address 0; it runs at FIRMWARE.
#include "abi.h"

#define FIRMWARE 0xffff0000
#define LINE_STATUS (GUEST_PORT_SERIAL + 5)
#define DATA_READY 1
#define TEN 10

        .text
        .code16
        .globl  _start
_start: cli
        lgdtl   %cs:(descriptors - _start)
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $8, $(FIRMWARE + (protected - _start))

        .code32
protected:
        mov     $16, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $BENCH_PAGES, %ecx
        mov     $GUEST_PAGES, %edi
fill:   mov     %ecx, (%edi)
        add     $4096, %edi
        dec     %ecx
        jnz     fill
        mov     $'R', %bl
answer: mov     $GUEST_PORT_SERIAL, %dx
        mov     %bl, %al
        out     %al, %dx
        mov     $LINE_STATUS, %dx
wait:   pause
        in      %dx, %al
        test    $DATA_READY, %al
        jz      wait
        mov     $GUEST_PORT_SERIAL, %dx
        in      %dx, %al
        mov     %al, %bl
        mov     $TEN, %ecx
        mov     $GUEST_PAGES, %edi
write:  mov     %ecx, (%edi)
        add     $4096, %edi
        dec     %ecx
        jnz     write
        jmp     answer

        .balign 8
table:  .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff
descriptors:
        .word   descriptors - table - 1
        .long   FIRMWARE + (table - _start)
        .org    0xfff0
        .code16
        jmp     _start
        .org    0x10000
        .section .note.GNU-stack, "", @progbits
