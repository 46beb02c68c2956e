// pit: counts the ticks of the 8254 at 1 kHz through the 8259A, IRQ 0, vector 0x20.
//
// Entry   long mode, ring 0, a stack of 256 bytes, in-kernel irqchip and PIT.
//         rsi  0: periodic ticks (mode 2), `sti; hlt` for ever.
//              1: one tick (mode 0) that stays pending: interrupts are off until GUEST_COMMAND_GO.
//                 Then ends with GUEST_EXIT_OK if it came exactly once, else GUEST_EXIT_MISMATCH.
//              2: as 0, but with interrupts off until GUEST_COMMAND_GO, so that ticks are pending.
// Memory  GUEST_COUNT ticks served, GUEST_VECTORS by vector, GUEST_PHASE; GUEST_EXTRA the vector of
//         an unexpected interrupt. GUEST_PHASE_WAITING is stored only once IRQ 0 is in the PIC's
//         interrupt request register.
// Ports   GUEST_PORT_READY once, GUEST_PORT_EXIT.
#include "abi.h"
#include "common.inc"
#include "interrupts.inc"

#define DIVISOR 1193                            // 1193182 Hz / 1193 = 1 kHz

        .text
        .globl  _start
_start: cli
        mov     %rsi, %r12
        set_up_interrupts
        set_up_pic 0xfe
        announce

        mov     $0x34, %al                      // channel 0, low then high byte, mode 2
        cmp     $1, %r12
        jne     1f
        mov     $0x30, %al                      // mode 0
1:      outb    %al, $0x43
        mov     $DIVISOR & 0xff, %al
        outb    %al, $0x40
        mov     $DIVISOR >> 8, %al
        outb    %al, $0x40
        test    %r12, %r12
        jz      serve

        mov     $0x0a, %al                      // OCW3: reads give the request register
        outb    %al, $0x20
2:      inb     $0x20, %al
        test    $1, %al
        jz      2b
        movl    $GUEST_PHASE_WAITING, GUEST_DATA + GUEST_PHASE
        wait_for_go
        movl    $GUEST_PHASE_RUNNING, GUEST_DATA + GUEST_PHASE
        cmp     $1, %r12
        jne     serve

        sti
        mov     $20000, %ecx                    // time for a second one that must not come
3:      dec     %ecx
        jnz     3b
        cli
        movl    $GUEST_PHASE_DONE, GUEST_DATA + GUEST_PHASE
        cmpq    $1, GUEST_DATA + GUEST_COUNT
        jne     4f
        finish  GUEST_EXIT_OK
4:      incq    GUEST_DATA + GUEST_ERRORS
        finish  GUEST_EXIT_MISMATCH

serve:  sti
        hlt
        jmp     serve

on_irq0:
        incq    GUEST_DATA + GUEST_COUNT
        end_of_pic_interrupt

on_irq4:
on_timer:
        interrupt_tables
