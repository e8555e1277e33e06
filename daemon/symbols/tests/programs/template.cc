// A function template in a namespace that prints its own address and waits.
#include <cstdio>
#include <unistd.h>
#include <vector>

namespace shop {
template <typename T> struct Cart {
	__attribute__((noinline)) void put(const std::vector<T> &)
	{
		void *pc;
		__asm__ volatile("lea -7(%%rip), %0" : "=r"(pc));
		std::printf("%p\n", pc);
		std::fflush(stdout);
	}
};
} // namespace shop

int main()
{
	shop::Cart<int>().put({});
	return getchar();
}
