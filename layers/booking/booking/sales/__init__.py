"""The sales read model: seats sold of each schedule and each concert. The catalogue reads it (step 3: the best selling
concerts, step 4: seats left), and the line's sold-out signal; the consumer of this package keeps it.
"""

SALES_CONSUMER = "sales"
"""Its name in the inbox."""
