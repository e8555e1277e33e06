// A library, or a program by itself, that waits in a function of its own. NAME is what the function is called.
#include <sys/syscall.h>
#include <time.h>

#ifndef NAME
#define NAME waits_here
#endif

// The call is made in this very function, so that its frame is the innermost and needs no frame pointer of a C library.
static __attribute__((noinline, noclone)) void NAME(void)
{
	struct timespec moment = { 0, 2000000 };
	long result = SYS_nanosleep;
	__asm__ volatile("syscall" : "+a"(result) : "D"(&moment), "S"(0L) : "rcx", "r11", "memory");
	__asm__ volatile("" ::: "memory");
}

__attribute__((visibility("default"))) void wait_in_library(void)
{
	NAME();
	__asm__ volatile("");
}

#ifdef PROGRAM
#include <stdio.h>
#include <sys/prctl.h>
#include <signal.h>

int main(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	puts("ready");
	fflush(stdout);
	for (;;)
		wait_in_library();
}
#endif
