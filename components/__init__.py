from textvae.interrupts import answer_with_a_line

answer_with_a_line()
