// A system call made by libc's syscall(), with every register that it leaves alone set to a known value, and all of
// them stored when it is back.
struct registers {
	uint64_t general[12];     // rbx rbp r12 r13 r14 r15 | rdi rsi rdx r10 r8 r9 (out only)
	uint8_t x87_control[8];
	uint8_t vectors[32 * 64]; // zmm0..31, or ymm0..15 in the first 32 bytes of each
	uint64_t masks[8];        // k1..k7
};

// mode 0: SSE, 1: AVX, 2: AVX-512. arguments: number and three arguments.
long registers_call(const uint64_t arguments[4], struct registers *in, struct registers *out, long mode, void *function);

#define EACH16(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define UPPER16(X) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)
#define MASKS7(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define LOAD_X(n) "movdqu 104+" #n "*64(%rsi), %xmm" #n "\n"
#define SAVE_X(n) "movdqu %xmm" #n ", 104+" #n "*64(%rax)\n"
#define LOAD_Y(n) "vmovdqu 104+" #n "*64(%rsi), %ymm" #n "\n"
#define SAVE_Y(n) "vmovdqu %ymm" #n ", 104+" #n "*64(%rax)\n"
#define LOAD_Z(n) "vmovdqu64 104+" #n "*64(%rsi), %zmm" #n "\n"
#define SAVE_Z(n) "vmovdqu64 %zmm" #n ", 104+" #n "*64(%rax)\n"
#define LOAD_K(n) "kmovw 2152+" #n "*8(%rsi), %k" #n "\n"
#define SAVE_K(n) "kmovw %k" #n ", 2152+" #n "*8(%rax)\n"

asm(".text\n"
    ".globl registers_call\n"
    "registers_call:\n"
    "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "sub $40, %rsp\n"
    "mov %rdx, 8(%rsp)\n"      // out
    "mov %rcx, 16(%rsp)\n"     // mode
    "mov %r8, 24(%rsp)\n"      // function
    "fnstcw 32(%rsp)\n"
    "stmxcsr 36(%rsp)\n"
    "fldcw 96(%rsi)\n"
    "ldmxcsr 100(%rsi)\n"
    "cmp $1, %rcx\n"
    "je 1f\nja 2f\n"
    EACH16(LOAD_X) "jmp 3f\n"
    "1:" EACH16(LOAD_Y) "jmp 3f\n"
    "2:" EACH16(LOAD_Z) UPPER16(LOAD_Z) MASKS7(LOAD_K)
    "3:\n"
    "mov 0(%rsi), %rbx\nmov 8(%rsi), %rbp\nmov 16(%rsi), %r12\n"
    "mov 24(%rsi), %r13\nmov 32(%rsi), %r14\nmov 40(%rsi), %r15\n"
    "mov %rdi, %rax\n"
    "mov 0(%rax), %rdi\nmov 8(%rax), %rsi\nmov 16(%rax), %rdx\nmov 24(%rax), %rcx\n"
    "mov $0x1111, %r8d\nmov $0x2222, %r9d\n"
    "movq $0x3333, 0(%rsp)\n"
    "call *24(%rsp)\n"
    "push %rax\n"
    "mov 16(%rsp), %rax\n"
    "mov %rbx, 0(%rax)\nmov %rbp, 8(%rax)\nmov %r12, 16(%rax)\n"
    "mov %r13, 24(%rax)\nmov %r14, 32(%rax)\nmov %r15, 40(%rax)\n"
    "mov %rdi, 48(%rax)\nmov %rsi, 56(%rax)\nmov %rdx, 64(%rax)\n"
    "mov %r10, 72(%rax)\nmov %r8, 80(%rax)\nmov %r9, 88(%rax)\n"
    "fnstcw 96(%rax)\n"
    "stmxcsr 100(%rax)\n"
    "mov 24(%rsp), %rcx\n"
    "cmp $1, %rcx\n"
    "je 4f\nja 5f\n"
    EACH16(SAVE_X) "jmp 6f\n"
    "4:" EACH16(SAVE_Y) "vzeroupper\njmp 6f\n"
    "5:" EACH16(SAVE_Z) UPPER16(SAVE_Z) MASKS7(SAVE_K) "vzeroupper\n"
    "6:\n"
    "pop %rax\n"
    "fldcw 32(%rsp)\n"
    "ldmxcsr 36(%rsp)\n"
    "add $40, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\n"
    "ret\n");

_Static_assert(offsetof(struct registers, vectors) == 104 && offsetof(struct registers, masks) == 2152, "asm offsets");

// Makes the call with patterns in all registers and says what came back changed. Returns what the call returned.
static long checked_call(long number, long a, long b, long c, unsigned seed)
{
	static _Thread_local struct registers in, out;
	long mode = __builtin_cpu_supports("avx512f") ? 2 : __builtin_cpu_supports("avx") ? 1 : 0;
	uint8_t *bytes = (uint8_t *)&in;
	for (size_t i = 0; i < sizeof(in); i++)
		bytes[i] = (uint8_t)(seed * 31 + i * 7 + 1);
	uint32_t mxcsr = 0x1fa0 | 0x6000; // round to zero, and a sticky flag
	uint16_t control = 0x0c7f;        // round to zero
	memset(in.x87_control, 0, 8);
	memcpy(in.x87_control, &control, 2);
	memcpy(in.x87_control + 4, &mxcsr, 4);
	memset(&out, 0, sizeof(out));
	uint64_t arguments[4] = { number, a, b, c };
	errno = 4242;
	long result = registers_call(arguments, &in, &out, mode, (void *)syscall);
	if (result >= 0)
		EXPECT(errno == 4242, "errno became %d", errno);
	static const char *names[] = { "rbx", "rbp", "r12", "r13", "r14", "r15" };
	for (int i = 0; i < 6; i++)
		EXPECT(in.general[i] == out.general[i], "%s is %lx, was %lx", names[i], out.general[i], in.general[i]);
	uint64_t expected[6] = { a, b, c, 0x1111, 0x2222, 0x3333 };
	static const char *more[] = { "rdi", "rsi", "rdx", "r10", "r8", "r9" };
	for (int i = 0; i < 6; i++)
		EXPECT(out.general[6 + i] == expected[i], "%s is %lx, was %lx", more[i], out.general[6 + i], expected[i]);
	EXPECT(!memcmp(in.x87_control, out.x87_control, 2), "x87 control word changed");
	EXPECT(!memcmp(in.x87_control + 4, out.x87_control + 4, 4), "mxcsr changed");
	int width = mode == 2 ? 64 : mode == 1 ? 32 : 16;
	for (int i = 0; i < (mode == 2 ? 32 : 16); i++)
		EXPECT(!memcmp(in.vectors + i * 64, out.vectors + i * 64, width), "vector register %d changed", i);
	for (int i = 1; i < 8 && mode == 2; i++)
		EXPECT((uint16_t)in.masks[i] == (uint16_t)out.masks[i], "mask register %d changed", i);
	return result;
}
