// <linux/kvm.h>, mended for C++, plus names that Debian 12's header (6.1) does not have yet.
#pragma once

#include <linux/stddef.h>

// The kernel's C++ variant of this macro wraps the array in a struct whose empty member takes a
// byte, so that kvm_cpuid2 has 12 bytes instead of 8, and every ioctl number made from such a
// struct is wrong (the kernel answers EINVAL). A zero-length array, a GNU extension, has no size.
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(T, member) T member[0]

#include <linux/kvm.h>

static_assert(sizeof(kvm_cpuid2) == 8);
static_assert(sizeof(kvm_msrs) == 8);
static_assert(sizeof(kvm_msr_list) == 4);
static_assert(sizeof(kvm_signal_mask) == 4);
static_assert(sizeof(kvm_xsave) == 4096);

// Linux 6.7, include/uapi/linux/kvm.h.
#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT 39
#endif
