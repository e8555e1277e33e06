// A thread that waits to be borrowed, and another one that ends the program, replaces it or forks when it is told to
// (SIGUSR1): while the first one is wherever an injection has it.
#include "common.h"

static const char *action, *self;

static void nothing(int signal) { (void)signal; }

static void *act(void *unused)
{
	sigset_t all_but_one;
	sigfillset(&all_but_one);
	sigdelset(&all_but_one, SIGUSR1);
	char line[64];
	snprintf(line, sizeof(line), "%ld\n", syscall(SYS_gettid));
	say(line);
	for (;;) {
		sigsuspend(&all_but_one);
		if (!strcmp(action, "exit"))
			exit(3);
		if (!strcmp(action, "exec"))
			execl(self, self, "read", (char *)0);
		if (!strcmp(action, "fork")) {
			pid_t child = fork();
			if (!child) {
				// Works as ever: allocates, starts a thread, ends.
				void *block = malloc(100000);
				memset(block, 1, 100000);
				free(block);
				_exit(5);
			}
			int status = 0;
			pid_t waited = waitpid(child, &status, 0);
			EXPECT(waited == child && WIFEXITED(status) && WEXITSTATUS(status) == 5, "child: %x", status);
			say(wrongs ? "bad\n" : "forked\n");
		}
	}
	return unused;
}

int main(int argc, char **argv)
{
	action = argc > 1 ? argv[1] : "exit";
	self = argc > 2 ? argv[2] : argv[0];
	sigset_t one;
	sigemptyset(&one);
	sigaddset(&one, SIGUSR1);
	sigprocmask(SIG_BLOCK, &one, 0);
	struct sigaction handler = { .sa_handler = nothing };
	sigaction(SIGUSR1, &handler, 0);
	say("ready\n");
	pthread_t actor;
	pthread_create(&actor, 0, act, 0);
	char byte;
	while (read(0, &byte, 1) == 1 && byte != 'q')
		say("ok\n");
	return wrongs ? 1 : 0;
}
