# A guest of the nested host: seconds after its start it has told what it sees, where Linux would take two minutes.
# It prints "L2-UP", one line for each PCI function ("PCI bb:dd.ff <device><vendor> <class><revision>", in hex), and
# "L2-READY" on the first serial port. Words of its command line: "+touch" has it write to each page of its memory
# before it is ready, "+spin" use all of its first CPU afterwards. As long as it runs it lets devices go when it is asked
# to ("L2-UNPLUGGED"), lists them again when some were added ("L2-PLUGGED"), and ends at the power button ("L2-OFF").
# Build: as --32 -o guest.o guest.S; ld -m elf_i386 -N -e 0x100000 -Ttext=0x100000 --oformat binary -o guest.bin guest.o
#
# A Multiboot kernel (https://www.gnu.org/software/grub/manual/multiboot/), which QEMU loads as it is. Of the machine
# types it knows q35. Its registers of ACPI are where QEMU and SeaBIOS put them (docs/specs/acpi_pci_hotplug in QEMU).

        .set    MAGIC, 0x1BADB002
        .set    FLAGS, (1 << 16) | (1 << 1)     # addresses are given; tell us of the memory
        .set    LOADED, 0x100000
        .set    STACK, 0x90000
        .set    FREE, 0x200000                  # no use is made of memory above
        .set    MEM_UPPER, 8                    # in Multiboot's information: KiB above the first MiB
        .set    COMMAND_LINE, 16                # the same: its address
        .set    BUSES, 32
        .set    COM1, 0x3f8
        .set    PIC, 0x20
        .set    TIMER, 0x20                     # its vector
        .set    TICKS, 8                        # of 18 a second, between two looks at the registers below
        .set    HOTPLUG, 0xcc0                  # by bus: +0 added, +4 to be let go, +8 let go; +0x10 chooses the bus
        .set    HOTPLUG_BUSES, 64
        .set    PM, 0x600                       # +0 events, +2 events that are wanted, +4 control
        .set    POWER_BUTTON, 1 << 8
        .set    SLEEP, 1 << 13                  # with type 0: power off

        .text
        .code32
header: .long   MAGIC, FLAGS, -(MAGIC + FLAGS)
        .long   header, header, 0, 0, entry     # where it lies, to the end of the file, no bss

entry:  cli
        cld
        mov     $STACK, %esp
        mov     %ebx, %ebp                      # Multiboot's information
        lgdt    segments
        ljmp    $8, $1f
1:      mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        lidt    vectors
        mov     $up, %esi
        call    puts
        call    list

        mov     $'t', %al
        call    asked
        jne     ready
        mov     MEM_UPPER(%ebp), %ecx
        shr     $2, %ecx                        # pages
        sub     $(FREE - 0x100000) / 4096, %ecx
        mov     $FREE, %edi
touch:  mov     %edi, (%edi)
        add     $4096, %edi
        loop    touch

ready:  mov     $0x11, %al                      # of the interrupts only the timer's, from TIMER on
        out     %al, $PIC
        mov     $TIMER, %al
        out     %al, $PIC + 1
        mov     $4, %al
        out     %al, $PIC + 1
        mov     $1, %al
        out     %al, $PIC + 1
        mov     $0xfe, %al
        out     %al, $PIC + 1
        mov     $PM + 2, %dx
        mov     $POWER_BUTTON, %ax
        out     %ax, %dx
        mov     $done, %esi
        call    puts
        mov     $'s', %al
        call    asked
        sti
        jne     idle
spin:   jmp     spin
idle:   hlt
        jmp     idle

tick:   pusha
        decb    left
        jnz     1f
        movb    $TICKS, left
        call    look
1:      mov     $0x20, %al                      # end of interrupt
        out     %al, $PIC
        popa
        iret

# Do what the machine asks for.
look:   xor     %edi, %edi                      # whether something was added
        xor     %ecx, %ecx                      # the bus
1:      mov     %ecx, %eax
        mov     $HOTPLUG + 0x10, %dx
        out     %eax, %dx
        mov     $HOTPLUG, %dx
        in      %dx, %eax
        or      %eax, %edi
        add     $4, %edx
        in      %dx, %eax
        test    %eax, %eax
        jz      2f
        add     $4, %edx
        out     %eax, %dx
        mov     $gone, %esi
        call    puts
2:      inc     %ecx
        cmp     $HOTPLUG_BUSES, %ecx
        jb      1b
        test    %edi, %edi
        jz      3f
        call    list
        mov     $added, %esi
        call    puts
3:      mov     $PM, %dx
        in      %dx, %ax
        test    $POWER_BUTTON, %ax
        jz      4f
        mov     $off, %esi
        call    puts
        mov     $PM + 4, %dx
        mov     $SLEEP, %ax
        out     %ax, %dx
4:      ret

# Print the PCI functions.
list:   mov     $0x80000000, %ebx               # enable, bus 0, device 0, function 0
scan:   mov     %ebx, %eax
        call    config
        cmp     $0xffffffff, %eax
        jne     found
        test    $0x700, %ebx                    # without function 0 there are no others
        jnz     next
        add     $0x700, %ebx
        jmp     next
found:  mov     %eax, %edi
        mov     $pci, %esi
        call    puts
        mov     %ebx, %eax
        shr     $16, %eax
        call    hex8
        mov     $':', %al
        call    putc
        mov     %bh, %al
        shr     $3, %al
        call    hex8
        mov     $'.', %al
        call    putc
        mov     %bh, %al
        and     $7, %al
        call    hex8
        mov     $' ', %al
        call    putc
        mov     %edi, %eax
        call    hex32
        mov     $' ', %al
        call    putc
        lea     8(%ebx), %eax
        call    config
        call    hex32
        mov     $'\n', %al
        call    putc
next:   add     $0x100, %ebx
        cmp     $0x80000000 + (BUSES << 16), %ebx
        jb      scan
        ret

# Tell (by the zero flag) whether the command line has a "+" that is followed by %al.
asked:  mov     COMMAND_LINE(%ebp), %esi
1:      cmpb    $0, (%esi)
        je      2f
        cmpb    $'+', (%esi)
        lea     1(%esi), %esi
        jne     1b
        cmp     %al, (%esi)
        jne     1b
        ret
2:      test    %esp, %esp
        ret

config: mov     $0xcf8, %dx
        out     %eax, %dx
        mov     $0xcfc, %dx
        in      %dx, %eax
        ret

hex32:  push    %eax
        shr     $16, %eax
        call    hex16
        pop     %eax
hex16:  push    %eax
        shr     $8, %eax
        call    hex8
        pop     %eax
hex8:   push    %eax
        shr     $4, %al
        call    hex4
        pop     %eax
hex4:   and     $15, %al
        cmp     $10, %al
        jb      1f
        add     $'a' - '0' - 10, %al
1:      add     $'0', %al
putc:   push    %eax
        mov     $COM1 + 5, %dx
1:      in      %dx, %al
        test    $0x20, %al
        jz      1b
        pop     %eax
        mov     $COM1, %dx
        out     %al, %dx
        ret

puts:   lodsb
        test    %al, %al
        jz      1f
        call    putc
        jmp     puts
1:      ret

left:   .byte   TICKS
up:     .asciz  "L2-UP\n"
pci:    .asciz  "PCI "
done:   .asciz  "L2-READY\n"
gone:   .asciz  "L2-UNPLUGGED\n"
added:  .asciz  "L2-PLUGGED\n"
off:    .asciz  "L2-OFF\n"

        .balign 8
gdt:    .quad   0, 0x00cf9a000000ffff, 0x00cf92000000ffff
timer:  .word   tick - header, 8, 0x8e00, LOADED >> 16
segments:
        .word   timer - gdt - 1
        .long   gdt
vectors:
        .word   (TIMER + 1) * 8 - 1
        .long   timer - TIMER * 8               # of the others none is taken
