// Two processes pass a byte back and forth through pipes on one CPU: two switches a round.
// argv: file of 8 bytes for the count of rounds; CPU. Runs until its parent ends or it is killed.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int there[2], back[2], file;
	volatile uint64_t *rounds;
	char byte = 0;
	cpu_set_t cpus;

	if (argc < 3)
		return 2;
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[2]), &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	file = open(argv[1], O_RDWR | O_CREAT, 0644);
	if (file < 0 || ftruncate(file, 8) || pipe(there) || pipe(back))
		return 1;
	rounds = mmap(0, 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (rounds == MAP_FAILED)
		return 1;
	if (!fork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1)
			;
		return 0;
	}
	while (write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1)
		++*rounds;
	return 0;
}
