# A guest of the nested host: a second after its start it has told what it sees, where Linux would take two minutes.
# It prints "L2-UP", one line for each PCI function ("PCI bb:dd.ff <device><vendor> <class><revision>", in hex), and
# "L2-READY" on the first serial port. Words of its command line: "+touch" has it write to each page of its memory
# before it is ready, "+spin" use all of its first CPU afterwards.
# Build: as --32 -o guest.o guest.S; ld -m elf_i386 -N -e 0x100000 -Ttext=0x100000 --oformat binary -o guest.bin guest.o
#
# A Multiboot kernel (https://www.gnu.org/software/grub/manual/multiboot/), which QEMU loads as it is.

        .set    MAGIC, 0x1BADB002
        .set    FLAGS, (1 << 16) | (1 << 1)     # addresses are given; tell us of the memory
        .set    STACK, 0x90000
        .set    FREE, 0x200000                  # no use is made of memory above
        .set    MEM_UPPER, 8                    # in Multiboot's information: KiB above the first MiB
        .set    COMMAND_LINE, 16                # the same: its address
        .set    BUSES, 32
        .set    COM1, 0x3f8

        .text
        .code32
header: .long   MAGIC, FLAGS, -(MAGIC + FLAGS)
        .long   header, header, 0, 0, entry     # where it lies, to the end of the file, no bss

entry:  cli
        cld
        mov     $STACK, %esp
        mov     %ebx, %ebp                      # Multiboot's information
        mov     $up, %esi
        call    puts

        mov     $0x80000000, %ebx               # enable, bus 0, device 0, function 0
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

ready:  mov     $done, %esi
        call    puts
        mov     $'s', %al
        call    asked
halt:   jne     idle
spin:   jmp     spin
idle:   hlt
        jmp     idle

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

up:     .asciz  "L2-UP\n"
pci:    .asciz  "PCI "
done:   .asciz  "L2-READY\n"
