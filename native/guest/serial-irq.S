// serial-irq: receives bytes on COM1 by interrupt (IRQ 4, vector 0x24) and sends each one back.
//
// Entry   long mode, ring 0, a stack of 256 bytes, in-kernel irqchip.
//         rsi  0: `sti; hlt` for ever.
//              1: interrupts are off until GUEST_COMMAND_GO, so that received bytes stay in the
//                 FIFO and the interrupt stays pending; then as 0.
// Memory  GUEST_COUNT   interrupts served (also at GUEST_VECTORS + 8 * 0x24).
//         GUEST_LENGTH  bytes received; they lie at GUEST_LINES, modulo 4096.
//         GUEST_ERRORS  interrupts that found no byte, but for one after an interrupt that served
//                       several: a byte that comes while that one is served raises an edge of its
//                       own, and is served with it.
//         GUEST_PHASE.
// Ports   GUEST_PORT_READY once, when bytes may be sent; GUEST_PORT_SERIAL; GUEST_PORT_EXIT with
//         GUEST_EXIT_OK when EOT (4) was received.
#include "abi.h"
#include "common.inc"
#include "interrupts.inc"

        .text
        .globl  _start
_start: cli
        mov     %rsi, %r12
        xor     %r13d, %r13d                    // bytes that the last interrupt served
        set_up_interrupts
        set_up_pic 0xef
        mov     $GUEST_PORT_SERIAL + 2, %edx    // FIFOs on and cleared, trigger at 1 byte
        mov     $0x07, %al
        outb    %al, %dx
        mov     $GUEST_PORT_SERIAL + 3, %edx    // 8 bits, no parity, 1 stop bit
        mov     $0x03, %al
        outb    %al, %dx
        mov     $GUEST_PORT_SERIAL + 4, %edx    // DTR, RTS, and OUT2, which lets IRQ 4 out
        mov     $0x0b, %al
        outb    %al, %dx
        mov     $GUEST_PORT_SERIAL + 1, %edx    // interrupt on received data
        mov     $0x01, %al
        outb    %al, %dx
        announce

        test    %r12, %r12
        jz      serve
        movl    $GUEST_PHASE_WAITING, GUEST_DATA + GUEST_PHASE
        wait_for_go
        movl    $GUEST_PHASE_RUNNING, GUEST_DATA + GUEST_PHASE
serve:  sti
        hlt
        jmp     serve

on_irq4:
        push    %rax
        push    %rcx
        push    %rdx
        incq    GUEST_DATA + GUEST_COUNT
        mov     %r13, %r14
        xor     %r13d, %r13d
        mov     $GUEST_PORT_SERIAL + 2, %edx    // reading it takes the interrupt's cause
        inb     %dx, %al
        mov     $GUEST_PORT_SERIAL + 5, %edx
        inb     %dx, %al
        test    $1, %al
        jnz     byte
        cmp     $1, %r14
        ja      done
        incq    GUEST_DATA + GUEST_ERRORS
        jmp     done

byte:   inc     %r13
        mov     $GUEST_PORT_SERIAL, %edx
        inb     %dx, %al
        mov     GUEST_DATA + GUEST_LENGTH, %rcx
        and     $4095, %ecx
        mov     %al, GUEST_DATA + GUEST_LINES(%rcx)
        incq    GUEST_DATA + GUEST_LENGTH
        cmp     $4, %al
        je      leave
        mov     %al, %cl
        mov     $GUEST_PORT_SERIAL + 5, %edx
full:   inb     %dx, %al
        test    $0x20, %al
        jz      full
        mov     $GUEST_PORT_SERIAL, %edx
        mov     %cl, %al
        outb    %al, %dx
        mov     $GUEST_PORT_SERIAL + 5, %edx
        inb     %dx, %al
        test    $1, %al
        jnz     byte

done:   pop     %rdx
        pop     %rcx
        pop     %rax
        end_of_pic_interrupt

leave:  movl    $GUEST_PHASE_DONE, GUEST_DATA + GUEST_PHASE
        finish  GUEST_EXIT_OK

on_irq0:
on_timer:
        interrupt_tables
