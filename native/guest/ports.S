// ports: executes a list of port and MMIO accesses that the host wrote, and stores what came back.
//
// Entry   long mode, ring 3 or ring 0; stack not used. Addresses of MMIO operations are mapped one
//         to one.
// Memory  GUEST_LINES: at most 256 operations of 32 bytes:
//           u8 op, u8 size, u16 port, u32 count, u64 address, u64 value, u64 result
//         op 0  end of the list: GUEST_COUNT + 1, GUEST_PHASE_DONE, GUEST_PORT_PASS; then waits for
//               GUEST_COMMAND_GO and starts over
//            1  in: result = port, size 1, 2 or 4      2  out: value to port
//            3  rep ins: count items to address        4  rep outs: count items from address
//            5  result = [address], size 1, 2, 4 or 8  6  [address] = value
//            7  exit: value to GUEST_PORT_EXIT
//         Results are zero-extended. An operation of unknown op or size adds 1 to GUEST_ERRORS.
// Ports   GUEST_PORT_READY once, GUEST_PORT_PASS at each end, and what the list says.
#include "abi.h"
#include "common.inc"

        .text
        .globl  _start
_start: announce
start:  mov     $GUEST_DATA + GUEST_LINES, %ebx
        movl    $GUEST_PHASE_RUNNING, GUEST_DATA + GUEST_PHASE
next:   movzbl  (%rbx), %eax
        movzbl  1(%rbx), %r8d
        movzwl  2(%rbx), %edx
        mov     4(%rbx), %ecx
        mov     8(%rbx), %rdi
        mov     %rdi, %rsi
        mov     16(%rbx), %r9
        cmp     $7, %eax
        ja      bad
        jmp     *operations(, %rax, 8)

// Goes to the label of the operation's size.
        .macro  by_size name
        cmp     $1, %r8d
        je      \name\()1
        cmp     $2, %r8d
        je      \name\()2
        cmp     $4, %r8d
        je      \name\()4
        .endm

bad:    incq    GUEST_DATA + GUEST_ERRORS
        jmp     advance
store:  mov     %rax, 24(%rbx)
advance:
        add     $32, %rbx
        cmp     $GUEST_DATA + GUEST_DATA_SIZE, %rbx
        jb      next

end:    incq    GUEST_DATA + GUEST_COUNT
        movl    $GUEST_PHASE_DONE, GUEST_DATA + GUEST_PHASE
        mov     $GUEST_PORT_PASS, %edx
        outb    %al, %dx
1:      cmpb    $GUEST_COMMAND_GO, GUEST_DATA + GUEST_COMMAND
        jne     1b
        movq    $0, GUEST_DATA + GUEST_COMMAND
        jmp     start

input:  xor     %eax, %eax
        by_size in
        jmp     bad
in1:    inb     %dx, %al
        jmp     store
in2:    inw     %dx, %ax
        jmp     store
in4:    inl     %dx, %eax
        jmp     store

output: mov     %r9, %rax
        by_size out
        jmp     bad
out1:   outb    %al, %dx
        jmp     advance
out2:   outw    %ax, %dx
        jmp     advance
out4:   outl    %eax, %dx
        jmp     advance

inputs: by_size ins
        jmp     bad
ins1:   rep insb
        jmp     advance
ins2:   rep insw
        jmp     advance
ins4:   rep insl
        jmp     advance

outputs:
        by_size outs
        jmp     bad
outs1:  rep outsb
        jmp     advance
outs2:  rep outsw
        jmp     advance
outs4:  rep outsl
        jmp     advance

load:   by_size load
        cmp     $8, %r8d
        jne     bad
        mov     (%rdi), %rax
        jmp     store
load1:  movzbl  (%rdi), %eax
        jmp     store
load2:  movzwl  (%rdi), %eax
        jmp     store
load4:  movl    (%rdi), %eax
        jmp     store

write:  by_size write
        cmp     $8, %r8d
        jne     bad
        mov     %r9, (%rdi)
        jmp     advance
write1: movb    %r9b, (%rdi)
        jmp     advance
write2: movw    %r9w, (%rdi)
        jmp     advance
write4: movl    %r9d, (%rdi)
        jmp     advance

leave:  mov     %r9, %rax
        mov     $GUEST_PORT_EXIT, %edx
        outb    %al, %dx
        jmp     leave

        .section .rodata
        .balign 8
operations:
        .quad   end, input, output, inputs, outputs, load, write, leave
