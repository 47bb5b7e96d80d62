"""The commands of ``kvtier``; ``kvtier.cli`` says what one consists of."""
