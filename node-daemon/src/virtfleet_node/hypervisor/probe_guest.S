# A guest that does what every operating system does while it comes up: paging and long mode, an exception and the
# return from it, interrupts on and off; and that looks whether it is as privileged as it believes. Then it says so on
# the serial port. A KVM that runs firmware, but no operating system, does not get to the end of it.
# Build: gcc -c -o guest.o probe_guest.S; ld -m elf_x86_64 -N -e 0x100000 -Ttext=0x100000 --oformat binary -o probe_guest.bin guest.o
#
# A Multiboot kernel (https://www.gnu.org/software/grub/manual/multiboot/), which QEMU loads as it is.

        .set    MAGIC, 0x1BADB002
        .set    HAS_ADDRESSES, 1 << 16
        .set    TABLES, 0x300000        # page map, directory pointers, directory: a page each
        .set    IDT, 0x303000
        .set    STACK, 0x200000
        .set    BREAKPOINT, 3           # the vector of int3
        .set    COM1, 0x3f8

        .text
        .code32
header: .long   MAGIC, HAS_ADDRESSES, -(MAGIC + HAS_ADDRESSES)
        .long   header, header, 0, 0, entry     # where it lies, to the end of the file, no bss

entry:  cli
        cld
        mov     $STACK, %esp
        mov     $TABLES, %edi
        xor     %eax, %eax
        mov     $(4 * 4096 / 4), %ecx
        rep stosl
        movl    $(TABLES + 0x1003), TABLES              # present, writable
        movl    $(TABLES + 0x2003), TABLES + 0x1000
        movl    $0x000083, TABLES + 0x2000              # the first 4 MiB in pages of 2 MiB, one to one
        movl    $0x200083, TABLES + 0x2008
        mov     $TABLES, %eax
        mov     %eax, %cr3
        mov     $(1 << 5), %eax                         # CR4.PAE
        mov     %eax, %cr4
        mov     $0xC0000080, %ecx                       # EFER
        rdmsr
        or      $(1 << 8), %eax                         # LME
        wrmsr
        mov     %cr0, %eax
        or      $(1 << 31), %eax                        # PG
        mov     %eax, %cr0
        lgdt    gdtr
        ljmp    $8, $long

        .code64
long:   mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     %cs, %eax
        test    $3, %al                                 # ring 0?
        jnz     stop
        mov     $on_breakpoint, %eax                    # an interrupt gate of ring 0
        mov     $(IDT + 16 * BREAKPOINT), %edi
        mov     %ax, (%rdi)
        movw    $8, 2(%rdi)
        movw    $0x8E00, 4(%rdi)
        shr     $16, %eax
        mov     %ax, 6(%rdi)
        lidt    idtr
        xor     %ebx, %ebx
        int3
        cmp     $1, %ebx
        jne     stop
        sidt    IDT + 0x800                             # still ours?
        cmpq    $IDT, IDT + 0x802
        jne     stop
        mov     $0xff, %al                              # no device may interrupt
        out     %al, $0x21
        out     %al, $0xa1
        sti
        pushfq
        cli
        pushfq
        pop     %rax
        test    $(1 << 9), %eax                         # IF, after cli
        jnz     stop
        pop     %rax
        test    $(1 << 9), %eax                         # IF, after sti
        jz      stop
        mov     $words, %esi
say:    mov     $COM1 + 5, %edx
        in      %dx, %al
        test    $(1 << 5), %al                          # ready for the next byte
        jz      say
        mov     $COM1, %edx
        outsb
        cmpb    $0, (%rsi)
        jne     say
stop:   cli
        hlt
        jmp     stop

on_breakpoint:
        inc     %ebx
        iretq

        .balign 8
gdt:    .quad   0, 0x00209A0000000000, 0x0000920000000000      # none, code of 64 bits, data
gdtr:   .word   gdtr - gdt - 1
        .long   gdt
idtr:   .word   16 * (BREAKPOINT + 1) - 1
        .quad   IDT
words:  .asciz  "virtfleet: a guest runs\n"
