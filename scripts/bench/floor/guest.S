// The guest of the floor program: native/guest/touch.S, at whatever address it is copied to.
#define _start guest_code
#include "touch.S"
        .globl  guest_code_end
guest_code_end:
        .section .note.GNU-stack, "", @progbits
