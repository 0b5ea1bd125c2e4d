# Signals of an interval timer, hashes, regular expressions, a socket pair and a pipe with two children; all of it checked.
# Counts in ./progress. Ends at ./stop.
use strict;
use warnings;
use IO::Handle;
use Socket;
use Time::HiRes qw(setitimer ITIMER_REAL clock_gettime CLOCK_MONOTONIC);

my ($ticks, $rounds, $answers, @errors) = (0, 0, 0);

$SIG{ALRM} = sub { $ticks++ };
$SIG{PIPE} = 'IGNORE';

# A child that answers each number with its square, over a socket pair.
socketpair(my $here, my $there, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!";
my $squares = fork() // die "fork: $!";
if (!$squares) {
	close $here;
	$there->autoflush(1);
	while (defined(my $line = <$there>)) {
		print $there $line * $line, "\n";
	}
	exit 0;
}
close $there;
$here->autoflush(1);

# A child that adds up what comes through a pipe, and says the sum at the end.
pipe(my $from, my $to) or die "pipe: $!";
my $adder = fork() // die "fork: $!";
if (!$adder) {
	close $to;
	close $here;
	my $sum = 0;
	$sum += $_ while <$from>;
	open my $out, '>', 'sum' or die "sum: $!";
	print $out "$sum\n";
	close $out;
	exit 0;
}
close $from;
$to->autoflush(1);

# Reading and writing go on when a signal comes, which perl sees to: it is how programs deal with timers.
setitimer(ITIMER_REAL, 0.005, 0.005);
my ($sum, $last, %kept) = (0, clock_gettime(CLOCK_MONOTONIC));
until (-e 'stop' or @errors) {
	for my $i (1 .. 300) {
		$kept{"key $i"} = "value $i of $rounds";
		$kept{"key $i"} =~ s/^value (\d+) of (\d+)$/$2:$1/ or push @errors, "no match in round $rounds";
	}
	for my $i (1 .. 300) {
		push @errors, "key $i is $kept{\"key $i\"} in round $rounds" if $kept{"key $i"} ne "$rounds:$i";
	}
	for my $i (1 .. 5) {
		my $number = $rounds * 5 + $i;
		print $to "$number\n";
		$sum += $number;
		print $here "$number\n";
		my $square = <$here>;
		push @errors, "the square of $number is " . ($square // 'nothing') unless defined $square && $square == $number * $number;
		$answers++;
	}
	my $now = clock_gettime(CLOCK_MONOTONIC);
	push @errors, "the clock goes from $last back to $now" if $now < $last;
	$last = $now;
	$rounds++;
	open my $progress, '>', 'progress.tmp' or die "progress: $!";
	print $progress "$rounds $ticks $answers\n";
	close $progress;
	rename 'progress.tmp', 'progress' or die "progress: $!";
}
setitimer(ITIMER_REAL, 0, 0);
close $to;
close $here;
for ([$squares, 'squares'], [$adder, 'sums']) {
	my ($pid, $name) = @$_;
	push @errors, "the child for $name ended with $?" unless waitpid($pid, 0) == $pid && $? == 0;
}
open my $in, '<', 'sum' or die "sum: $!";
my $got = <$in>;
push @errors, "the sum is $got instead of $sum" unless $got == $sum;
print "$_\n" for @errors;
print @errors ? "FAIL\n" : "PASS\n";
