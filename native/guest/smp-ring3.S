// smp-ring3: several vCPUs count at native speed, none starts another.
//
// Entry   every vCPU in long mode, ring 3 (or 0), runnable; registers are the host's to set:
//         rsi  the number of the vCPU, below 64; stack not used.
// Memory  GUEST_LINES + 64 * rsi: that vCPU's count. GUEST_COUNT: the sum of all, kept with locked
//         increments: it equals the sum of the lines, give or take one for each vCPU.
// Ports   GUEST_PORT_READY once from each vCPU.
#include "abi.h"
#include "common.inc"

        .text
        .globl  _start
_start: mov     %rsi, %rbx
        and     $63, %ebx
        shl     $6, %ebx
        announce
1:      incq    GUEST_DATA + GUEST_LINES(%rbx)
        lock incq GUEST_DATA + GUEST_COUNT
        jmp     1b
